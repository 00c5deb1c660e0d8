// What the panel follows while it is shown: the server's status, and the journal of the account that the reader chose.
// The moments outlive the panel, so that coming back shows what was seen before, with a gap.
import { effect, signal } from '@preact/signals';

import { follow } from '../../link';
import { place } from '../../route';
import { accounts, failure, lab, type Failure } from '../../service';
import type { StreamEntriesResponse } from '../../generated/zbl/v1/account_service_pb';
import { folded, unread, type Fold } from './fold';
import { append, EMPTY, type Ring } from './ring';

/** The name of the status stream, by which its state is asked. */
export const STATUS = 'monitor status';
const ENTRIES = 'monitor entries';

/** What was seen. */
export const ring = signal<Ring>(EMPTY);

/** When the reader stopped, milliseconds since 1970; null for live. */
export const stoppedAt = signal<number | null>(null);

/** The watched account; null where none is chosen. Not a signal: it is taken along with each status. */
let account: Fold | null = null;

/** Why the chosen account cannot be watched; null where it can. */
export const accountFailure = signal<Failure | null>(null);

/** The account that the address names; null where it names none. */
export function chosenAccount(): bigint | null {
    const text = place.value.parameters.user ?? '';
    return /^[1-9]\d{0,18}$/.test(text) ? BigInt(text) : null;
}

/** Follows the server until the returned function is called. */
export function watchStatus(): () => void {
    return follow(
        STATUS,
        (signal) => lab.watchStatus({}, { signal }),
        ({ status }) => {
            if (status !== undefined) {
                ring.value = append(ring.value, status, Date.now(), account);
            }
        },
    );
}

/** Follows whichever account the address names, until the returned function is called. */
export function watchAccount(): () => void {
    let stop = (): void => undefined;
    let watched: bigint | null = null;
    const end = effect(() => {
        const userId = chosenAccount();
        if (userId !== watched) {
            stop();
            watched = userId;
            stop = userId === null ? forget : followEntries(userId);
        }
    });
    return () => {
        end();
        stop();
    };
}

function forget(): void {
    account = null;
    accountFailure.value = null;
}

function followEntries(userId: bigint): () => void {
    forget();
    let fold = unread(userId);
    const stop = follow(
        `${ENTRIES} ${userId}`,
        (end) => entries(userId, () => fold.version, end),
        (response) => {
            fold = response.entries.reduce(folded, fold);
            account = fold.version === 0n ? null : fold;
        },
    );
    async function* entries(of: bigint, after: () => bigint, end: AbortSignal): AsyncIterable<StreamEntriesResponse> {
        try {
            yield* accounts.streamEntries({ userId: of, afterVersion: after() }, { signal: end });
        } catch (error) {
            const why = failure(error);
            if (why.reason === 'INVALID_RESUME') {
                // Another journal than the one that was read: it is read from its beginning.
                fold = unread(of);
                return;
            }
            if (!why.away && !end.aborted && !why.reason.endsWith('UNAUTHENTICATED')) {
                // This account's trouble, and not the connection's.
                accountFailure.value = why;
                stop();
            }
            throw error;
        }
    }
    return () => {
        stop();
        forget();
    };
}
