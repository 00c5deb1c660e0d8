// What happened between two statuses of one server: a server counts from its start and only upward, so a rate is a
// difference over the time that the server itself says has passed. Pure; owns no state.
import type { Duration } from '@bufbuild/protobuf/wkt';

import type { LatencyBucket, ServerStatus } from '../../generated/zbl/v1/lab_service_pb';

/** Longer than this between two statuses, seconds, and their average would hide what happened: no rate is told. */
const LONGEST_STEP_S = 5;

/** What a second of the time between two statuses was like. */
export interface Rates {
    /** Changes acknowledged per second. */
    readonly succeeded: number;
    /** Changes refused by the rules per second; null where the server does not count them. */
    readonly refused: number | null;
    /** Changes that came to nothing, or to an unknown outcome, per second; null likewise. */
    readonly failed: number | null;
    /** Milliseconds within which half of the changes were answered; null where there were none, or nobody counts. */
    readonly p50: number | null;
    /** The same for 99 of 100. */
    readonly p99: number | null;
    /** Statements to the database per second. */
    readonly roundTrips: number;
    /** Transactions rolled back per second. */
    readonly rollbacks: number;
}

/** A duration of the contract in milliseconds. */
export function milliseconds(duration: Duration): number {
    return Number(duration.seconds) * 1000 + duration.nanos / 1e6;
}

/** The rates between two statuses; null where the second is not of the same run, or too far from the first. */
export function ratesBetween(before: ServerStatus, after: ServerStatus): Rates | null {
    if (before.uptime === undefined || after.uptime === undefined) {
        return null;
    }
    const seconds = (milliseconds(after.uptime) - milliseconds(before.uptime)) / 1000;
    const isSameRun = before.instance === after.instance && before.timeline?.epoch === after.timeline?.epoch;
    if (!isSameRun || seconds <= 0 || seconds > LONGEST_STEP_S) {
        return null;
    }
    const [old, now] = [counters(before), counters(after)];
    if (now.some((count, at) => count < (old[at] ?? 0n))) {
        return null;
    }
    const rate = now.map((count, at) => Number(count - (old[at] ?? 0n)) / seconds);
    const [acknowledged = 0, roundTrips = 0, rollbacks = 0, succeeded = 0, refused = 0, failed = 0] = rate;
    const work = { roundTrips, rollbacks };
    if (before.changes === undefined || after.changes === undefined) {
        return { ...work, succeeded: acknowledged, refused: null, failed: null, p50: null, p99: null };
    }
    const grown = difference(before.changes.latency, after.changes.latency);
    return { ...work, succeeded, refused, failed, p50: percentile(grown, 0.5), p99: percentile(grown, 0.99) };
}

/** What only grows, in the order in which it is taken apart above. */
function counters({ work, changes }: ServerStatus): bigint[] {
    return [
        work?.acknowledged ?? 0n,
        work?.roundTrips ?? 0n,
        work?.rollbacks ?? 0n,
        changes?.succeeded ?? 0n,
        changes?.refused ?? 0n,
        changes?.failed ?? 0n,
    ];
}

/** How many took longer than the bucket before says, and at most `upTo` milliseconds. */
export interface Bucket {
    readonly upTo: number;
    readonly count: number;
}

/** By how much buckets have grown; none where the two do not have the same bounds. */
export function difference(before: readonly LatencyBucket[], after: readonly LatencyBucket[]): readonly Bucket[] {
    const grown = after.map((bucket, at) => ({
        upTo: bound(bucket),
        count: Number(bucket.count - (before[at]?.count ?? 0n)),
    }));
    const bounds = before.map(bound);
    const isAlike = bounds.length === grown.length && grown.every(({ upTo }, at) => upTo === bounds[at]);
    return isAlike && grown.every(({ count }) => count >= 0) ? grown : [];
}

function bound(bucket: LatencyBucket): number {
    return bucket.upTo === undefined ? Infinity : milliseconds(bucket.upTo);
}

/**
 * The milliseconds within which that part (0 to 1) of what the buckets hold was answered, taken as spread evenly within
 * a bucket; of the last, which has no end, its beginning. Null where they hold nothing.
 */
export function percentile(buckets: readonly Bucket[], part: number): number | null {
    const total = buckets.reduce((sum, { count }) => sum + count, 0);
    if (total === 0) {
        return null;
    }
    const rank = part * total;
    let passed = 0;
    let from = 0;
    for (const { upTo, count } of buckets) {
        if (count > 0 && passed + count >= rank) {
            return upTo === Infinity ? from : from + ((upTo - from) * (rank - passed)) / count;
        }
        passed += count;
        from = upTo;
    }
    return from;
}
