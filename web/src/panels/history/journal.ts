// The newest part of an account's journal, kept up to date: a few pages back, then the stream of what is written. Owns how
// much is held; refuses to judge it.
import { signal, type ReadonlySignal } from '@preact/signals';

import { EntryOrder } from '../../generated/zbl/v1/account_service_pb';
import { follow } from '../../link';
import { accounts, failure, isCancelled, type Failure } from '../../service';
import { held, type Held } from './tree';

/** The most entries that are held: their tree is made anew with each change, within some ten milliseconds. */
export const HELD_MOST = 5_000;

/** Entries of a page: the most that the contract grants. */
const PAGE = 1_000;

/** How often what was written is shown, milliseconds: as often as an eye can use it. */
const SHOWN_EVERY_MS = 250;

/** What there is to show. */
export interface Journal {
    /** Contiguous, oldest first. */
    readonly entries: readonly Held[];
    /** How older ones are asked for; null when there are none. */
    readonly olderToken: string | null;
    readonly failure: Failure | null;
    readonly isLoading: boolean;
}

/** An account's journal for as long as somebody looks at it. */
export class Following {
    private readonly state = signal<Journal>({ entries: [], olderToken: null, failure: null, isLoading: true });
    private readonly ended = new AbortController();
    private isFollowed = false;
    private waiting: Held[] = [];
    private timer: ReturnType<typeof setTimeout> | undefined;

    constructor(private readonly user: bigint) {
        void this.begin();
    }

    get journal(): ReadonlySignal<Journal> {
        return this.state;
    }

    /** Stops. */
    end(): void {
        this.ended.abort();
        clearTimeout(this.timer);
    }

    /** Whether a page of older entries may be asked for. */
    get hasRoom(): boolean {
        return this.state.value.entries.length + PAGE <= HELD_MOST;
    }

    /** Asks for a page of older entries. */
    async older(): Promise<void> {
        const { olderToken, isLoading } = this.state.value;
        if (olderToken !== null && !isLoading && this.hasRoom) {
            await this.page(olderToken);
        }
    }

    /** Reads the newest page, and then what is written. After a failure again, where that was of older ones these. */
    async begin(): Promise<void> {
        if (this.isFollowed) {
            this.state.value = { ...this.state.value, failure: null };
            await this.older();
            return;
        }
        await this.page('');
        if (this.ended.signal.aborted || this.state.value.failure !== null) {
            return;
        }
        this.isFollowed = true;
        const stop = follow(
            'history',
            (signal, onHeader) => {
                const afterVersion = BigInt(this.newest());
                return accounts.streamEntries({ userId: this.user, afterVersion }, { signal, onHeader });
            },
            ({ entries }) => this.take(entries.map(held)),
        );
        this.ended.signal.addEventListener('abort', stop);
    }

    private async page(pageToken: string): Promise<void> {
        this.state.value = { ...this.state.value, isLoading: true, failure: null };
        const order = EntryOrder.NEWEST_FIRST;
        const { signal } = this.ended;
        try {
            const page = await accounts.listEntries({ userId: this.user, pageSize: PAGE, pageToken, order }, { signal });
            const [older, known] = [page.entries.map(held).reverse(), this.state.value.entries];
            // What is held may have been cut while the page was on its way; then there would be a hole between the two.
            const isNext = known.length === 0 || older.at(-1)?.version === (known[0]?.version ?? 0) - 1;
            const grown = isNext ? { entries: [...older, ...known], olderToken: page.nextPageToken || null } : {};
            this.state.value = { ...this.state.value, ...grown, failure: null, isLoading: false };
        } catch (error) {
            if (!isCancelled(error)) {
                this.state.value = { ...this.state.value, isLoading: false, failure: failure(error) };
            }
        }
    }

    private newest(): number {
        return this.waiting.at(-1)?.version ?? this.state.value.entries.at(-1)?.version ?? 0;
    }

    /** Takes what was written, to be shown together with what comes within a moment. */
    private take(entries: readonly Held[]): void {
        this.waiting.push(...entries);
        if (this.waiting.length > 0) {
            this.timer ??= setTimeout(() => {
                this.timer = undefined;
                this.show();
            }, SHOWN_EVERY_MS);
        }
    }

    private show(): void {
        const before = this.state.value;
        const all = [...before.entries, ...this.waiting];
        this.waiting = [];
        const entries = all.slice(-HELD_MOST);
        // A page token leads on from the oldest entry there was: with that one gone there is no way back but anew.
        const olderToken = entries.length < all.length ? null : before.olderToken;
        this.state.value = { ...before, entries, olderToken };
    }
}
