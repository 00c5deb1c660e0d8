// What is drawn of how much: bars to shapes, races to bands. Pure, and bounded however many events there are: what is
// narrower than can be seen becomes a block, and what is left out is counted.
import { Phase } from '../../generated/zbl/v1/timeline_pb';
import type { AccountEvents, At, Bar, Race } from './ring';

/** The most shapes of a picture: a browser draws so many within a frame. */
export const SHAPES_MOST = 3_000;

/** The most lanes of a picture: more would not fit on a screen. */
export const LANES_MOST = 64;

/** The most bands of a picture. */
export const BANDS_MOST = 200;

/** The narrowest bar that is drawn by itself, pixels. */
const NARROWEST = 1.5;

/** Bars and where they are on the axis: nanoseconds, or steps. */
export interface Placed {
    readonly bars: readonly Bar[];
    readonly starts: Float64Array;
    readonly ends: Float64Array;
    readonly lanes: number;
    readonly from: number;
    readonly to: number;
    /** The place of a time on the axis. */
    readonly place: (ns: number) => number;
}

/** The part of the axis that is seen. */
export interface View {
    readonly from: number;
    readonly to: number;
}

/** A bar, or many that are too narrow to be told apart; pixels from the left. */
export interface Shape {
    readonly lane: number;
    readonly x: number;
    readonly width: number;
    readonly bar: Bar | null;
    readonly count: number;
}

/** Bars on the axis of time, or in steps: each beginning and each end is one, so that what overlapped still does. */
export function placed(bars: readonly Bar[], isOrder: boolean): Placed {
    const starts = Float64Array.from(bars, (bar) => bar.start);
    const ends = Float64Array.from(bars, (bar) => bar.end);
    const lanes = bars.reduce((most, bar) => Math.max(most, bar.lane), 0);
    if (!isOrder) {
        const from = starts.reduce((least, start) => Math.min(least, start), Infinity);
        const to = ends.reduce((most, end) => Math.max(most, end), -Infinity);
        return { bars, starts, ends, lanes, ...span(from, to), place: (ns) => ns };
    }
    const moments = new Float64Array(bars.length * 2);
    moments.set(starts);
    moments.set(ends, bars.length);
    moments.sort();
    const steps = moments.filter((moment, at) => at === 0 || moment !== moments[at - 1]);
    const place = (ns: number): number => rank(steps, ns);
    return { bars, starts: starts.map(place), ends: ends.map(place), lanes, ...span(0, steps.length - 1), place };
}

function span(from: number, to: number): View {
    return Number.isFinite(from) && Number.isFinite(to) && to > from ? { from, to } : { from: 0, to: 1 };
}

/** How many are before it. */
function rank(steps: Float64Array, ns: number): number {
    let [low, high] = [0, steps.length];
    while (low < high) {
        const middle = (low + high) >> 1;
        if ((steps[middle] ?? 0) < ns) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/** The shapes of what is seen, and how many bars are in blocks. */
export function shapes(placed: Placed, view: View, width: number): { shapes: readonly Shape[]; merged: number } {
    for (let narrowest = NARROWEST; ; narrowest *= 2) {
        const drawn = shapesFrom(placed, view, width, narrowest);
        if (drawn.shapes.length <= SHAPES_MOST) {
            return drawn;
        }
    }
}

function shapesFrom(placed: Placed, view: View, width: number, narrowest: number): { shapes: Shape[]; merged: number } {
    const scale = width / (view.to - view.from);
    const buckets = Math.ceil(width / narrowest);
    const crowds = new Map<number, Uint32Array>();
    const drawn: Shape[] = [];
    let merged = 0;
    for (const [at, bar] of placed.bars.entries()) {
        const [start = 0, end = 0] = [placed.starts[at], placed.ends[at]];
        if (end < view.from || start > view.to || bar.lane > LANES_MOST) {
            continue;
        }
        const x = (start - view.from) * scale;
        const wide = (end - start) * scale;
        if (wide >= narrowest) {
            drawn.push({ lane: bar.lane, x, width: wide, bar, count: 1 });
            continue;
        }
        const crowd = crowds.get(bar.lane) ?? new Uint32Array(buckets);
        crowds.set(bar.lane, crowd);
        const bucket = Math.min(Math.max(Math.floor(x / narrowest), 0), buckets - 1);
        crowd[bucket] = (crowd[bucket] ?? 0) + 1;
        merged += 1;
    }
    for (const [lane, crowd] of crowds) {
        drawn.push(...blocks(lane, crowd, narrowest));
    }
    return { shapes: drawn, merged };
}

/** Buckets side by side that have something in them, as one block each. */
function* blocks(lane: number, crowd: Uint32Array, narrowest: number): Generator<Shape> {
    let from = -1;
    let count = 0;
    for (let bucket = 0; bucket <= crowd.length; bucket += 1) {
        const here = crowd[bucket] ?? 0;
        if (here > 0) {
            from = from < 0 ? bucket : from;
            count += here;
        } else if (from >= 0) {
            yield { lane, x: from * narrowest, width: (bucket - from) * narrowest, bar: null, count };
            from = -1;
            count = 0;
        }
    }
}

/** A race in the picture: the window in which its overwriter believed what was no longer so. Nanoseconds. */
export interface Band {
    readonly race: Race;
    /** The stale read, and the write that overwrote. */
    readonly read: Bar;
    readonly write: Bar;
    /** The writes that were overwritten, as far as they are held. */
    readonly victims: readonly { readonly bar: Bar; readonly delta: bigint }[];
}

/** The band of a race; null where its read or its write is not held. */
export function band(race: Race, account: AccountEvents): Band | null {
    const own = account.of(race.overwriter.request);
    const read = own.findLast((bar) => bar.seen !== null && bar.seen.version === race.seen?.version);
    const write = wrote(own, race.overwriter.version);
    if (read === undefined || write === undefined) {
        return null;
    }
    const victims = race.victims.flatMap(({ request, version, delta }) => {
        const bar = wrote(account.of(request), version);
        return bar === undefined ? [] : [{ bar, delta }];
    });
    return { race, read, write, victims };
}

function wrote(bars: readonly Bar[], version: number): Bar | undefined {
    const writes = bars.filter((bar) => bar.written?.version === version);
    return writes.find((bar) => bar.phase === Phase.WRITE) ?? writes[0];
}

/** The bands that are seen, the newest first, and how many more there are. */
export function bands(all: readonly Band[], placed: Placed, view: View): { bands: readonly Band[]; more: number } {
    const seen = all.filter(({ read, write }) => placed.place(read.start) <= view.to && placed.place(write.end) >= view.from);
    return { bands: seen.slice(-BANDS_MOST).reverse(), more: Math.max(0, seen.length - BANDS_MOST) };
}

/** A moment of the balance: as it was written, and as it should have been; minor units. */
export interface Moment {
    readonly at: number;
    readonly actual: bigint;
    readonly expected: bigint;
}

/**
 * The balance over time. What a write destroyed is exact at once, and adds up to what is missing: so the balance that should
 * be is the one there is, less what was destroyed since the first moment held.
 */
export function balances(bars: readonly Bar[]): readonly Moment[] {
    const commits = bars.filter((bar): bar is Bar & { written: At } => {
        return bar.phase === Phase.COMMIT && bar.failure === null && bar.written !== null;
    });
    commits.sort((one, other) => one.written.version - other.written.version);
    let destroyed = 0n;
    return commits.map(({ end, written, destroyed: more }) => {
        destroyed += more ?? 0n;
        return { at: end, actual: written.balance, expected: written.balance - destroyed };
    });
}
