import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { expect, test } from 'vitest';

import {
    GapReason,
    Phase,
    StreamTimelineResponseSchema,
    type StreamTimelineResponse,
} from '../src/generated/zbl/v1/timeline_pb';
import { ndjson, trace } from '../src/panels/lanes/exports';
import { balances, band, bands, BANDS_MOST, placed, shapes, SHAPES_MOST, type Band } from '../src/panels/lanes/picture';
import { Ring, type AccountEvents, type Bar, type Race } from '../src/panels/lanes/ring';

type Event = NonNullable<MessageInitShape<typeof StreamTimelineResponseSchema>['event']>;

function told(sequence: number, event: Event, epoch = 'one'): StreamTimelineResponse {
    return create(StreamTimelineResponseSchema, { epoch, sequence: BigInt(sequence), instance: 'here', event });
}

interface Told {
    request: string;
    lane: number;
    phase: Phase;
    from: number;
    to: number;
    seen?: [string, number];
    written?: [string, number];
    destroyed?: string;
    user?: number;
}

function span({ request, lane, phase, from, to, seen, written, destroyed = '', user = 7 }: Told): Event {
    const at = (state: [string, number]) => ({ balance: state[0], version: BigInt(state[1]) });
    return {
        case: 'span',
        value: {
            userId: BigInt(user),
            requestId: request,
            lane,
            phase,
            strategy: 'none',
            attempt: 1,
            startNs: BigInt(from),
            durationNs: BigInt(to - from),
            destroyed,
            ...(seen && { seen: at(seen) }),
            ...(written && { written: at(written) }),
        },
    };
}

/** A and B have both read 100.00 at version 1; B writes over A. */
const RACE: Event[] = [
    span({ request: 'a', lane: 1, phase: Phase.READ, from: 0, to: 10, seen: ['100.00', 1] }),
    span({ request: 'b', lane: 2, phase: Phase.READ, from: 5, to: 15, seen: ['100.00', 1] }),
    span({ request: 'a', lane: 1, phase: Phase.WRITE, from: 20, to: 30, written: ['90.00', 2] }),
    span({ request: 'a', lane: 1, phase: Phase.COMMIT, from: 30, to: 40, written: ['90.00', 2] }),
    span({ request: 'b', lane: 2, phase: Phase.WRITE, from: 45, to: 50, written: ['90.00', 3] }),
    span({ request: 'b', lane: 2, phase: Phase.COMMIT, from: 50, to: 60, written: ['90.00', 3], destroyed: '10.00' }),
    {
        case: 'race',
        value: {
            userId: 7n,
            overwriter: { requestId: 'b', version: 3n, delta: '-10.00', balanceAfter: '90.00' },
            seen: { balance: '100.00', version: 1n },
            victims: [{ requestId: 'a', version: 2n, delta: '-10.00', balanceAfter: '90.00' }],
            destroyed: '10.00',
        },
    },
];

function ringOf(events: readonly Event[], most?: number): Ring {
    const ring = new Ring(most);
    events.forEach((event, at) => ring.take(told(at + 1, event)));
    return ring;
}

function account(ring: Ring): AccountEvents {
    const found = ring.accounts.get('7');
    if (found === undefined) {
        throw new Error('account 7 is not held');
    }
    return found;
}

test('a race leads from the stale read to the write, and to the write that it destroyed', () => {
    const held = account(ringOf(RACE));
    const [race] = held.races.all();
    const found = race && band(race, held);
    expect(found?.read).toMatchObject({ request: 'b', phase: Phase.READ, start: 5 });
    expect(found?.write).toMatchObject({ request: 'b', phase: Phase.WRITE, start: 45 });
    expect(found?.victims).toMatchObject([{ bar: { request: 'a', phase: Phase.WRITE }, delta: -1000n }]);
});

test('a race whose read went with the oldest events is told, and has no band', () => {
    const held = account(ringOf(RACE, 4));
    const [race] = held.races.all();
    expect(race?.k).toBe(1);
    expect(race && band(race, held)).toBeNull();
});

test('the balance that should be is less by what was destroyed', () => {
    expect(balances(account(ringOf(RACE)).bars.all())).toEqual([
        { at: 40, actual: 9000n, expected: 9000n },
        { at: 60, actual: 9000n, expected: 8000n },
    ]);
});

test('the oldest events go when there is no room, whoever they are of', () => {
    const ring = ringOf([span({ request: 'x', lane: 1, phase: Phase.READ, from: 0, to: 1, user: 8 }), ...RACE], 7);
    expect([ring.held, ring.dropped]).toEqual([7, 1]);
    expect([...ring.accounts.keys()]).toEqual(['7']);
    ring.take(told(9, RACE[0] ?? { case: undefined }));
    expect(account(ring).of('a').map((bar) => bar.sequence)).toEqual([4, 5, 9]);
});

test('a stream is taken up behind what was last told, and a gap is told', () => {
    const ring = ringOf(RACE);
    expect(ring.resume).toEqual({ epoch: 'one', afterSequence: 7n, includeRetained: true });
    const gap = { reason: GapReason.SLOW_READER, afterSequence: 7n, nextSequence: 20n };
    ring.take(told(19, { case: 'gap', value: gap }));
    expect(ring.remarks).toEqual([{ why: 'slow', events: 12 }]);
    expect(ring.held).toBe(7);
});

test('another epoch has another clock: nothing of the last one stays', () => {
    const ring = ringOf(RACE);
    ring.take(told(1, RACE[0] ?? { case: undefined }, 'two'));
    expect([ring.held, ring.remarks[0]?.why, ring.resume.epoch]).toEqual([1, 'restarted', 'two']);
    ring.take(told(2, { case: 'gap', value: { reason: GapReason.CLEARED } }, 'two'));
    expect([ring.held, ring.remarks.at(-1)?.why]).toEqual([0, 'cleared']);
});

/** So many bars of a nanosecond each, in eight lanes. */
function crowd(count: number): Bar[] {
    return Array.from({ length: count }, (_, at) => ({
        sequence: at,
        user: '7',
        request: `r${at >> 2}`,
        lane: (at % 8) + 1,
        strategy: 'none',
        phase: Phase.READ,
        attempt: 1,
        start: at * 10,
        end: at * 10 + 9,
        seen: null,
        written: null,
        destroyed: null,
        trace: '',
        failure: null,
    }));
}

test('a hundred thousand bars come to no more shapes than can be drawn, and none is left out', () => {
    const all = placed(crowd(100_000), false);
    for (const zoom of [1, 0.1, 0.03, 0.001]) {
        const view = { from: all.from, to: all.from + (all.to - all.from) * zoom };
        const { shapes: drawn, merged } = shapes(all, view, 1400);
        expect(drawn.length).toBeLessThanOrEqual(SHAPES_MOST);
        const seen = all.bars.filter((_, at) => (all.starts[at] ?? 0) <= view.to).length;
        expect(drawn.reduce((sum, shape) => sum + shape.count, 0)).toBe(seen);
        expect(drawn.filter((shape) => shape.bar === null).reduce((sum, shape) => sum + shape.count, 0)).toBe(merged);
    }
    const close = shapes(all, { from: 0, to: 100 }, 1400);
    expect(close.merged).toBe(0);
    expect(close.shapes[0]).toMatchObject({ x: 0, count: 1, bar: { sequence: 0 } });
});

test('of many bands the newest are drawn, and the others are counted', () => {
    const bars = crowd(1000);
    const all = placed(bars, false);
    const [race] = account(ringOf(RACE)).races.all() as [Race];
    const many = bars.map((bar, at): Band => ({ race: { ...race, k: at }, read: bar, write: bar, victims: [] }));
    const { bands: drawn, more } = bands(many, all, all);
    expect([drawn.length, more, drawn[0]?.race.k]).toEqual([BANDS_MOST, 1000 - BANDS_MOST, 999]);
});

test('in order each beginning and end is a step, and what overlapped still does', () => {
    const bars = account(ringOf(RACE)).bars.all();
    const order = placed(bars, true);
    expect([...order.starts]).toEqual([0, 1, 4, 5, 7, 8]);
    expect([...order.ends]).toEqual([2, 3, 5, 6, 8, 9]);
    expect([order.from, order.to, order.place(45)]).toEqual([0, 9, 7]);
});

test('a line of NDJSON is what the watcher writes', () => {
    const held = account(ringOf(RACE));
    const lines = ndjson(held.bars.all(), held.races.all(), 'here').map((line) => JSON.parse(line) as unknown);
    expect(lines).toHaveLength(7);
    expect(lines[0]).toEqual({
        source: 0,
        event: {
            sequence: 1,
            instance: 'here',
            span: {
                user_id: 7,
                request_id: 'a',
                lane: 1,
                strategy: 'none',
                phase: 'PHASE_READ',
                attempt: 1,
                start_ns: 0,
                duration_ns: 10,
                seen: { balance: '100.00', version: 1 },
            },
        },
    });
    expect(lines[6]).toMatchObject({ event: { sequence: 7, race: { destroyed: '10.00', victims: [{ version: 2 }] } } });
});

test('slices of a lane do not overlap in the trace, and a race has both its ends', () => {
    const [one] = crowd(1) as [Bar];
    const overlapping = [
        { ...one, start: 0, end: 10 },
        { ...one, start: 8, end: 12 },
    ];
    const slices = trace('7', overlapping, []) as { traceEvents: { ph: string; ts: number; dur: number }[] };
    const [first, second] = slices.traceEvents.filter((event) => event.ph === 'X');
    expect((first?.ts ?? 0) + (first?.dur ?? 0)).toBe(second?.ts);
    const held = account(ringOf(RACE));
    const found = held.races.all().flatMap((race) => band(race, held) ?? []);
    const { traceEvents } = trace('7', held.bars.all(), found) as { traceEvents: { ph: string }[] };
    expect(['b', 'e', 's', 'f', 'C'].map((ph) => traceEvents.filter((event) => event.ph === ph).length)).toEqual([1, 1, 1, 1, 2]);
});
