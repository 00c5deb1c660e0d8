// The last statuses, so that the reader can look back: a bounded ring of moments. Pure; owns no state.
import type { ServerStatus } from '../../generated/zbl/v1/lab_service_pb';
import type { Fold } from './fold';
import { ratesBetween, type Rates } from './rates';

/** How many moments are kept: a quarter of an hour of one a second. */
export const MOMENTS_MAX = 900;

/** How many leases of a moment are kept; an attack on one account has one, and a busy server may have thousands. */
export const LEASES_MAX = 100;

/** A status, and what the second before it was like. */
export interface Moment {
    /** When the page had it, milliseconds since 1970. */
    readonly at: number;
    /** The status, without what does not change and what the rates were made of. */
    readonly status: ServerStatus;
    /** How many leases there were, those that are not kept included. */
    readonly leases: number;
    /** Null in the first moment of a run, and behind a gap. */
    readonly rates: Rates | null;
    /** The account that was watched, as it was then; null where none was. */
    readonly account: Fold | null;
}

/** What is known: the moments, oldest first, and the newest status whole, which the next is compared with. */
export interface Ring {
    readonly moments: readonly Moment[];
    readonly newest: ServerStatus | null;
}

export const EMPTY: Ring = { moments: [], newest: null };

/** The ring with one more status; the oldest moment goes where there are too many. */
export function append({ moments, newest }: Ring, status: ServerStatus, at: number, account: Fold | null): Ring {
    const kept: ServerStatus = { ...status, strategies: [], leases: status.leases.slice(0, LEASES_MAX) };
    if (kept.changes !== undefined) {
        kept.changes = { ...kept.changes, latency: [] };
    }
    const rates = newest === null ? null : ratesBetween(newest, status);
    const moment: Moment = { at, status: kept, leases: status.leases.length, rates, account };
    return { moments: [...moments.slice(-(MOMENTS_MAX - 1)), moment], newest: status };
}

/** The moment that a reader who stopped at `at` looks at: that one, or the oldest when it is gone; live, the newest. */
export function lookedAt(moments: readonly Moment[], at: number | null): Moment | undefined {
    if (at === null) {
        return moments.at(-1);
    }
    return moments.find((moment) => moment.at >= at) ?? moments.at(-1);
}
