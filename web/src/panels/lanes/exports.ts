// The held events as files: NDJSON in the form of `timeline -o ndjson`, and Chrome's trace format, which Perfetto opens.
// In the trace accounts are processes, lanes threads, phases slices; a race is an asynchronous slice and an arrow.
import { Phase } from '../../generated/zbl/v1/timeline_pb';
import { decimal } from '../../money';
import type { At, Bar, Race, Side } from './ring';
import type { Band } from './picture';

const state = (at: At): object => ({ balance: decimal(at.balance), version: at.version });
const side = ({ request, version, delta, after }: Side): object => ({
    request_id: request,
    version,
    delta: decimal(delta),
    balance_after: decimal(after),
});

/** A line for each event, in order of sequence. Zero values are left out, as everywhere in the contract's JSON. */
export function ndjson(bars: readonly Bar[], races: readonly Race[], instance: string): string[] {
    const events = [
        ...bars.map((bar) => ({ sequence: bar.sequence, event: { span: spanOf(bar) } })),
        ...races.map((race) => ({ sequence: race.sequence, event: { race: raceOf(race) } })),
    ];
    events.sort((one, other) => one.sequence - other.sequence);
    return events.map(({ sequence, event }) => `${JSON.stringify({ source: 0, event: { sequence, instance, ...event } })}\n`);
}

function spanOf(bar: Bar): object {
    return {
        user_id: Number(bar.user),
        request_id: bar.request,
        lane: bar.lane,
        strategy: bar.strategy,
        phase: `PHASE_${Phase[bar.phase]}`,
        attempt: bar.attempt,
        start_ns: bar.start,
        duration_ns: bar.end - bar.start,
        ...(bar.seen && { seen: state(bar.seen) }),
        ...(bar.written && { written: state(bar.written) }),
        ...(bar.destroyed !== null && { destroyed: decimal(bar.destroyed) }),
        ...(bar.trace !== '' && { trace_id: bar.trace }),
        ...(bar.failure !== null && { failed: true, failure: bar.failure }),
    };
}

function raceOf(race: Race): object {
    return {
        user_id: Number(race.user),
        overwriter: side(race.overwriter),
        ...(race.seen && { seen: state(race.seen) }),
        victims: race.victims.map(side),
        ...(race.omitted > 0 && { victims_omitted: race.omitted }),
        destroyed: decimal(race.destroyed),
    };
}

/** One account in Chrome's trace format. Times are microseconds from the first bar. */
export function trace(user: string, bars: readonly Bar[], bands: readonly Band[]): object {
    const origin = bars.reduce((least, bar) => Math.min(least, bar.start), Infinity);
    const micros = (ns: number): number => (ns - origin) / 1000;
    const pid = 1;
    const lanes = [...new Set(bars.map((bar) => bar.lane))];
    const names = [
        { ph: 'M', name: 'process_name', pid, tid: 0, args: { name: `account ${user}` } },
        ...lanes.map((tid) => ({ ph: 'M', name: 'thread_name', pid, tid, args: { name: `lane ${tid}` } })),
    ];
    const slices = apart(bars).map(({ bar, start, end }) => ({
        ph: 'X',
        cat: 'phase',
        name: Phase[bar.phase].toLowerCase().replace('_', ' '),
        pid,
        tid: bar.lane,
        ts: micros(start),
        dur: (end - start) / 1000,
        args: spanOf(bar),
    }));
    const counters = bars.flatMap((bar) =>
        bar.phase === Phase.COMMIT && bar.written !== null && bar.failure === null
            ? [{ ph: 'C', name: 'balance', pid, tid: 0, ts: micros(bar.end), args: { 'minor units': Number(bar.written.balance) } }]
            : [],
    );
    const races = bands.flatMap(({ race, read, write }) => {
        const name = `stale: destroys ${decimal(race.destroyed)}`;
        const common = { cat: 'race', name, id: race.k, pid };
        const middle = (bar: Bar): number => micros((bar.start + bar.end) / 2);
        return [
            { ph: 'b', ...common, tid: read.lane, ts: micros(read.end), args: raceOf(race) },
            { ph: 'e', ...common, tid: write.lane, ts: micros(Math.max(write.start, read.end)) },
            { ph: 's', ...common, tid: read.lane, ts: middle(read) },
            { ph: 'f', bp: 'e', ...common, tid: write.lane, ts: middle(write) },
        ];
    });
    return { displayTimeUnit: 'ns', traceEvents: [...names, ...slices, ...counters, ...races] };
}

/** Bars so that none of a lane overlaps the one before it, as the format wants them: clocks may be coarse. */
function apart(bars: readonly Bar[]): { bar: Bar; start: number; end: number }[] {
    const until = new Map<number, number>();
    return bars.map((bar) => {
        const start = Math.max(bar.start, until.get(bar.lane) ?? -Infinity);
        const end = Math.max(bar.end, start);
        until.set(bar.lane, end);
        return { bar, start, end };
    });
}
