// What the page holds of the timeline: the newest events, account by account, and what is missing of them. Owns the bound and
// where a broken stream is taken up again; refuses to draw.
import { GapReason, type Contender, type Phase, type Span, type StreamTimelineResponse } from '../../generated/zbl/v1/timeline_pb';
import type { Race as RaceMessage, State } from '../../generated/zbl/v1/timeline_pb';
import { minor } from '../../money';

/** The most events that are held: some 40 MB. */
export const HELD_MOST = 100_000;

/** The most remarks about what is missing; older ones go. */
const REMARKS_MOST = 5;

/** A balance at a version; minor units. */
export interface At {
    readonly balance: bigint;
    readonly version: number;
}

/** A phase of an operation. Times are nanoseconds since the server's epoch began. */
export interface Bar {
    readonly sequence: number;
    readonly user: string;
    readonly request: string;
    readonly lane: number;
    readonly strategy: string;
    readonly phase: Phase;
    readonly attempt: number;
    readonly start: number;
    readonly end: number;
    readonly seen: At | null;
    readonly written: At | null;
    /** The money that this write destroyed, minor units; null for none. */
    readonly destroyed: bigint | null;
    readonly trace: string;
    /** Why it failed, in a word; null where it did not. */
    readonly failure: string | null;
}

/** One side of a race; minor units. */
export interface Side {
    readonly request: string;
    readonly version: number;
    readonly delta: bigint;
    readonly after: bigint;
}

/** A lost update, as it was committed. */
export interface Race {
    /** Its number among those of its account, from 1. */
    readonly k: number;
    readonly sequence: number;
    readonly user: string;
    readonly overwriter: Side;
    readonly seen: At | null;
    readonly victims: readonly Side[];
    /** How many more there may be, at the most. */
    readonly omitted: number;
    readonly destroyed: bigint;
}

/** What is missing of the stream. */
export interface Remark {
    readonly why: 'slow' | 'restarted' | 'cleared';
    readonly events: number;
}

/** A queue that is read from its beginning, and pushed to and shifted from without moving what is in it each time. */
export class Fifo<T> {
    private items: T[] = [];
    private head = 0;

    get length(): number {
        return this.items.length - this.head;
    }

    push(item: T): void {
        this.items.push(item);
    }

    shift(): T | undefined {
        const first = this.items[this.head];
        this.head = Math.min(this.head + 1, this.items.length);
        if (this.head * 2 > this.items.length) {
            this.items = this.items.slice(this.head);
            this.head = 0;
        }
        return first;
    }

    last(): T | undefined {
        return this.length > 0 ? this.items.at(-1) : undefined;
    }

    all(): readonly T[] {
        return this.items.slice(this.head);
    }
}

/** What is held of an account. */
export class AccountEvents {
    readonly bars = new Fifo<Bar>();
    readonly races = new Fifo<Race>();
    /** How many races there were, those that are not held any more too. */
    counted = 0;
    private readonly byRequest = new Map<string, Bar[]>();

    constructor(readonly user: string) {}

    /** The phases of an operation that are held, in order. */
    of(request: string): readonly Bar[] {
        return this.byRequest.get(request) ?? [];
    }

    push(bar: Bar): void {
        this.bars.push(bar);
        const known = this.byRequest.get(bar.request);
        if (known === undefined) {
            this.byRequest.set(bar.request, [bar]);
        } else {
            known.push(bar);
        }
    }

    shift(): void {
        const gone = this.bars.shift();
        const known = gone && this.byRequest.get(gone.request);
        known?.shift();
        if (gone !== undefined && known?.length === 0) {
            this.byRequest.delete(gone.request);
        }
    }
}

/** The newest events. */
export class Ring {
    readonly accounts = new Map<string, AccountEvents>();
    remarks: readonly Remark[] = [];
    /** Events that went because there was no room. */
    dropped = 0;
    instance = '';
    private order = new Fifo<{ readonly of: AccountEvents; readonly isRace: boolean }>();
    private position = { epoch: '', afterSequence: 0n };

    constructor(private readonly most = HELD_MOST) {}

    get held(): number {
        return this.order.length;
    }

    /** Where the stream is to be taken up. */
    get resume(): { epoch: string; afterSequence: bigint; includeRetained: boolean } {
        return { ...this.position, includeRetained: true };
    }

    /** Takes what the server tells. */
    take(message: StreamTimelineResponse): void {
        if (this.position.epoch !== '' && this.position.epoch !== message.epoch) {
            this.forget();
            this.remark({ why: 'restarted', events: 0 });
        }
        this.position = { epoch: message.epoch, afterSequence: message.sequence };
        this.instance = message.instance;
        const sequence = Number(message.sequence);
        switch (message.event.case) {
            case 'span':
                this.keep(bar(message.event.value, sequence));
                break;
            case 'race':
                this.keepRace(message.event.value, sequence);
                break;
            case 'gap':
                this.gap(message.event.value.reason, message.event.value.nextSequence - message.event.value.afterSequence);
                break;
            default:
        }
    }

    /** Forgets everything that is held. */
    forget(): void {
        this.accounts.clear();
        this.order = new Fifo();
        this.dropped = 0;
    }

    private gap(reason: GapReason, distance: bigint): void {
        if (reason === GapReason.CLEARED) {
            this.forget();
            this.remark({ why: 'cleared', events: 0 });
        } else if (reason === GapReason.SLOW_READER) {
            this.remark({ why: 'slow', events: Math.max(0, Number(distance) - 1) });
        }
    }

    private remark(remark: Remark): void {
        this.remarks = [...this.remarks, remark].slice(-REMARKS_MOST);
    }

    private keep(held: Bar): void {
        const of = this.account(held.user);
        of.push(held);
        this.enter({ of, isRace: false });
    }

    private keepRace(message: RaceMessage, sequence: number): void {
        const of = this.account(message.userId.toString());
        of.counted += 1;
        of.races.push(race(message, sequence, of));
        this.enter({ of, isRace: true });
    }

    private account(user: string): AccountEvents {
        const known = this.accounts.get(user) ?? new AccountEvents(user);
        this.accounts.set(user, known);
        return known;
    }

    private enter(entry: { readonly of: AccountEvents; readonly isRace: boolean }): void {
        this.order.push(entry);
        while (this.order.length > this.most) {
            const oldest = this.order.shift();
            if (oldest === undefined) {
                return;
            }
            if (oldest.isRace) {
                oldest.of.races.shift();
            } else {
                oldest.of.shift();
            }
            this.dropped += 1;
            if (oldest.of.bars.length === 0 && oldest.of.races.length === 0) {
                this.accounts.delete(oldest.of.user);
            }
        }
    }
}

function at(state: State | undefined): At | null {
    return state === undefined ? null : { balance: minor(state.balance) ?? 0n, version: Number(state.version) };
}

/** A span of the contract. */
export function bar(span: Span, sequence: number): Bar {
    const start = Number(span.startNs);
    return {
        sequence,
        user: span.userId.toString(),
        request: span.requestId,
        lane: span.lane,
        strategy: span.strategy,
        phase: span.phase,
        attempt: span.attempt,
        start,
        end: start + Number(span.durationNs),
        seen: at(span.seen),
        written: at(span.written),
        destroyed: span.destroyed === '' ? null : minor(span.destroyed),
        trace: span.traceId,
        failure: span.failed ? span.failure : null,
    };
}

function side(contender: Contender): Side {
    return {
        request: contender.requestId,
        version: Number(contender.version),
        delta: minor(contender.delta) ?? 0n,
        after: minor(contender.balanceAfter) ?? 0n,
    };
}

function race(message: RaceMessage, sequence: number, of: AccountEvents): Race {
    return {
        k: of.counted,
        sequence,
        user: of.user,
        overwriter: message.overwriter
            ? side(message.overwriter)
            : { request: '', version: 0, delta: 0n, after: 0n },
        seen: at(message.seen),
        victims: message.victims.map(side),
        omitted: message.victimsOmitted,
        destroyed: minor(message.destroyed) ?? 0n,
    };
}
