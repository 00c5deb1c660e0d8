// What the monitor computes: rates, percentiles, the ring and the fold of a journal.
import { create } from '@bufbuild/protobuf';
import { describe, expect, it } from 'vitest';

import { EntryKind, EntrySchema, type Entry } from '../src/generated/zbl/v1/account_service_pb';
import { LeaseSchema, ServerStatusSchema, type ServerStatus } from '../src/generated/zbl/v1/lab_service_pb';
import { folded, unread } from '../src/panels/monitor/fold';
import { percentile, ratesBetween } from '../src/panels/monitor/rates';
import { append, EMPTY, LEASES_MAX, lookedAt, MOMENTS_MAX, type Ring } from '../src/panels/monitor/ring';

interface Said {
    readonly upMs: number;
    readonly succeeded: bigint;
    readonly epoch?: string;
    readonly latency?: readonly (readonly [number | null, bigint])[];
}

function duration(ms: number) {
    return { seconds: BigInt(Math.floor(ms / 1000)), nanos: (ms % 1000) * 1e6 };
}

function status({ upMs, succeeded, epoch = 'e', latency = [] }: Said): ServerStatus {
    return create(ServerStatusSchema, {
        instance: 'a',
        uptime: duration(upMs),
        timeline: { epoch },
        work: { acknowledged: succeeded, roundTrips: succeeded * 3n },
        changes: {
            succeeded,
            refused: succeeded / 10n,
            latency: latency.map(([upTo, count]) => ({ count, ...(upTo === null ? {} : { upTo: duration(upTo) }) })),
        },
    });
}

describe('rates', () => {
    it('are differences over the time that the server says has passed', () => {
        const rates = ratesBetween(status({ upMs: 1000, succeeded: 100n }), status({ upMs: 1500, succeeded: 200n }));
        expect(rates).toMatchObject({ succeeded: 200, refused: 20, failed: 0, roundTrips: 600, p50: null });
    });

    it('are exact for counters beyond what a float holds', () => {
        const huge = 2n ** 62n;
        const rates = ratesBetween(status({ upMs: 0, succeeded: huge }), status({ upMs: 1000, succeeded: huge + 7n }));
        expect(rates?.succeeded).toBe(7);
    });

    it.each([
        ['the uptime went back', { upMs: 500, succeeded: 200n }],
        ['a counter fell', { upMs: 2000, succeeded: 99n }],
        ['it is another run', { upMs: 2000, succeeded: 200n, epoch: 'f' }],
        ['too much time has passed', { upMs: 60_000, succeeded: 200n }],
    ])('begin anew where %s', (_, after) => {
        expect(ratesBetween(status({ upMs: 1000, succeeded: 100n }), status(after))).toBeNull();
    });

    it('fall back on what is acknowledged where a server does not count changes', () => {
        const [before, after] = [status({ upMs: 0, succeeded: 1n }), status({ upMs: 1000, succeeded: 5n })];
        delete after.changes;
        delete before.changes;
        expect(ratesBetween(before, after)).toMatchObject({ succeeded: 4, refused: null, p99: null });
    });

    it('tell percentiles of what came between', () => {
        const slow = [[1, 0n], [10, 100n], [null, 0n]] as const;
        const fast = [[1, 50n], [10, 150n], [null, 0n]] as const;
        const before = status({ upMs: 0, succeeded: 100n, latency: slow });
        const rates = ratesBetween(before, status({ upMs: 1000, succeeded: 200n, latency: fast }));
        // 50 within 1 ms and 50 between 1 and 10: the median is the first bucket's end.
        expect(rates?.p50).toBe(1);
        expect(rates?.p99).toBeCloseTo(1 + (9 * 49) / 50);
    });

    it('tell no percentile of buckets that are not the same', () => {
        const before = status({ upMs: 0, succeeded: 1n, latency: [[1, 1n], [null, 0n]] });
        const after = status({ upMs: 1000, succeeded: 2n, latency: [[2, 2n], [null, 0n]] });
        expect(ratesBetween(before, after)?.p50).toBeNull();
    });
});

describe('a percentile', () => {
    it('is nothing of nothing', () => {
        expect(percentile([{ upTo: 1, count: 0 }], 0.5)).toBeNull();
    });

    it('of what has no upper bound is the lower one', () => {
        expect(percentile([{ upTo: 5, count: 1 }, { upTo: Infinity, count: 9 }], 0.99)).toBe(5);
    });
});

describe('the ring', () => {
    function filled(count: number): Ring {
        return Array.from({ length: count }).reduce<Ring>(
            (ring, _, at) => append(ring, status({ upMs: at * 1000, succeeded: BigInt(at) }), at, null),
            EMPTY,
        );
    }

    it('keeps the last moments and no more', () => {
        const { moments } = filled(MOMENTS_MAX + 5);
        expect(moments).toHaveLength(MOMENTS_MAX);
        expect([moments[0]?.at, moments.at(-1)?.at]).toEqual([5, MOMENTS_MAX + 4]);
        expect(moments[0]?.rates?.succeeded).toBe(1);
    });

    it('keeps of a status what can be looked at later, and says how much that is not', () => {
        const busy = status({ upMs: 0, succeeded: 1n, latency: [[1, 1n]] });
        busy.leases = Array.from({ length: LEASES_MAX + 3 }, () => create(LeaseSchema));
        const [moment] = append(EMPTY, busy, 0, null).moments;
        expect(moment?.status.leases).toHaveLength(LEASES_MAX);
        expect(moment?.leases).toBe(LEASES_MAX + 3);
        expect(moment?.status.changes?.latency).toEqual([]);
    });

    it('shows the newest live, the chosen moment to who stopped, and the oldest once that is gone', () => {
        const { moments } = filled(10);
        expect(lookedAt(moments, null)?.at).toBe(9);
        expect(lookedAt(moments, 4)?.at).toBe(4);
        expect(lookedAt(moments.slice(6), 4)?.at).toBe(6);
        expect(lookedAt([], 4)).toBeUndefined();
    });
});

describe('the fold', () => {
    function entry(version: bigint, kind: EntryKind, delta: string, balanceAfter: string): Entry {
        return create(EntrySchema, { userId: 7n, version, kind, delta, balanceAfter });
    }

    it('holds a balance against what its journal adds up to', () => {
        const journal = [
            entry(1n, EntryKind.OPEN, '100.00', '100.00'),
            entry(2n, EntryKind.DEDUCT, '-10.00', '90.00'),
            entry(3n, EntryKind.DEDUCT, '-10.00', '90.00'),
        ];
        expect(journal.reduce(folded, unread(7n))).toEqual({ userId: 7n, version: 3n, actual: 9000n, expected: 8000n });
    });

    it.each([EntryKind.RESET, EntryKind.REPAIR])('begins anew with kind %i', (kind) => {
        const lost = { userId: 7n, version: 3n, actual: 9000n, expected: 8000n };
        expect(folded(lost, entry(4n, kind, '10.00', '50.00'))).toMatchObject({ actual: 5000n, expected: 5000n });
    });
});
