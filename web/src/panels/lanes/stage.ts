// What the reader looks at: which account, which part of the axis, live or stopped, time or order, which phase and race. Owns
// how one leads to another; refuses to draw and to know the page.
import { batch, computed, signal } from '@preact/signals';

import { note } from '../../route';
import { news, ring } from './feed';
import { balances, band, placed, type Band, type Moment, type Placed, type View } from './picture';
import type { AccountEvents, Bar, Race } from './ring';

/** The newest phases that the live picture shows: some ten operations, whose values can be read. */
const LIVE_BARS = 240;

/** The newest races that are listed and drawn. */
export const RACES_MOST = 500;

/** The least that can be seen at once: a microsecond, or two steps. */
const NARROWEST = { time: 1_000, order: 2 };


/** The account that was asked for; "" for the one where something happens. */
export const user = signal('');
export const isOrder = signal(false);
export const chosen = signal<Bar | null>(null);
export const race = signal<Race | null>(null);
/** The part of the axis that is seen; null for the newest, or all of it. */
export const view = signal<View | null>(null);
export const showsAll = signal(false);

/** What is held of an account at a moment. */
interface Held {
    readonly user: string;
    /** The races there were. */
    readonly counted: number;
    readonly bars: readonly Bar[];
    readonly races: readonly Race[];
    readonly bands: readonly Band[];
}

/** What is shown of it. */
export interface Shot extends Held {
    readonly placed: Placed;
    readonly moments: readonly Moment[];
}

function heldOf(events: AccountEvents): Held {
    const races = events.races.all().slice(-RACES_MOST);
    const bands = races.flatMap((race) => band(race, events) ?? []);
    return { user: events.user, counted: events.counted, bars: events.bars.all(), races, bands };
}

/** What was held when the reader stopped; null while it is live. */
const stopped = signal<Held | null>(null);
export const isPaused = computed(() => stopped.value !== null);

/** The account that is shown: the one asked for, or the one that raced last, or else the last one. */
function account(): AccountEvents | undefined {
    const known = ring.accounts.get(user.value);
    if (known !== undefined || user.value !== '') {
        return known;
    }
    const all = [...ring.accounts.values()];
    const newest = (of: (events: AccountEvents) => { readonly sequence: number } | undefined): AccountEvents | undefined =>
        all.reduce<AccountEvents | undefined>((best, next) => {
            const [before, now] = [best && of(best)?.sequence, of(next)?.sequence];
            return now !== undefined && now > (before ?? -1) ? next : best;
        }, undefined);
    return newest((events) => events.races.last()) ?? newest((events) => events.bars.last());
}

/** What there is to draw. */
export const shot = computed<Shot | null>(() => {
    // The picture follows the news, unless it was stopped.
    const events = stopped.value === null && news.value >= 0 ? account() : undefined;
    const held = stopped.value ?? (events && heldOf(events));
    return held === undefined
        ? null
        : { ...held, placed: placed(held.bars, isOrder.value), moments: balances(held.bars) };
});

/** What is seen of it. */
export const seen = computed<View>(() => {
    const all = shot.value?.placed;
    if (all === undefined) {
        return { from: 0, to: 1 };
    }
    const first = all.bars.length - LIVE_BARS;
    if (view.value !== null || showsAll.value || first <= 0) {
        return view.value ?? { from: all.from, to: all.to };
    }
    return { from: all.starts[first] ?? all.from, to: all.to };
});

/** Stops the picture, or lets it go on. */
export function pause(stop: boolean): void {
    const events = stop ? ring.accounts.get(shot.value?.user ?? '') : undefined;
    if (isPaused.value === stop) {
        return;
    }
    batch(() => {
        view.value = stop ? seen.value : null;
        stopped.value = events === undefined ? null : heldOf(events);
    });
}

/** Shows a part of the axis, and stops: what is looked at shall stay. */
export function look(next: View): void {
    const least = isOrder.value ? NARROWEST.order : NARROWEST.time;
    const [middle, half] = [(next.from + next.to) / 2, Math.max((next.to - next.from) / 2, least / 2)];
    pause(true);
    view.value = { from: middle - half, to: middle + half };
}

/** Moves by a share of what is seen. */
export function move(share: number): void {
    const { from, to } = seen.value;
    const by = (to - from) * share;
    look({ from: from + by, to: to + by });
}

/** Shows less (below 1) or more, around a place on the axis. */
export function zoom(times: number, around = (seen.value.from + seen.value.to) / 2): void {
    const { from, to } = seen.value;
    look({ from: around - (around - from) * times, to: around + (to - around) * times });
}

/** Shows everything that is held. */
export function all(): void {
    batch(() => {
        view.value = null;
        showsAll.value = true;
    });
}

/** Goes on with what happens. */
export function live(): void {
    batch(() => {
        showsAll.value = false;
        pause(false);
    });
}

/** Takes the other axis. What was seen there is nowhere on this one. */
export function setOrder(order: boolean): void {
    batch(() => {
        isOrder.value = order;
        view.value = null;
    });
    note({ order: order ? '1' : '' });
    const now = shot.value?.bands.find((band) => band.race === race.value);
    if (now !== undefined) {
        frame(now);
    }
}

/** Chooses an account; "" for the one where something happens. */
export function setUser(next: string): void {
    batch(() => {
        stopped.value = null;
        view.value = null;
        chosen.value = null;
        race.value = null;
        user.value = next;
    });
    note({ user: next, race: '' });
}

/** Shows a race, and the write that overwrote. */
export function showRace(next: Race): void {
    pause(true);
    const found = shot.value?.bands.find((band) => band.race.k === next.k);
    batch(() => {
        race.value = next;
        chosen.value = found?.write ?? null;
    });
    note({ user: next.user, race: next.k.toString() });
    if (found !== undefined) {
        frame(found);
    }
}

/** The race so many behind the shown one; the newest where none is shown. */
export function nextRace(by: 1 | -1): void {
    const races = shot.value?.races ?? [];
    const at = races.findIndex((other) => other.k === race.value?.k);
    const next = at < 0 ? races.at(-1) : races[at + by];
    if (next !== undefined) {
        showRace(next);
    }
}

/** The phase so many behind the chosen one, in order of their beginnings. */
export function walk(by: 1 | -1): void {
    const now = shot.value;
    if (now === null) {
        return;
    }
    const bars = now.placed.bars.toSorted((one, other) => one.start - other.start || one.lane - other.lane);
    const at = chosen.value === null ? -1 : bars.indexOf(chosen.value);
    const next = at < 0 ? bars.at(-1) : bars[at + by];
    if (next === undefined) {
        return;
    }
    pause(true);
    chosen.value = next;
    const { from, to } = seen.value;
    const place = now.placed.place(next.start);
    if (place < from || place > to) {
        look({ from: place - (to - from) / 2, to: place + (to - from) / 2 });
    }
}

/** Shows the whole of a race with something around it. */
function frame({ read, write, victims }: Band): void {
    const now = shot.value;
    if (now !== null) {
        const bars = [read, write, ...victims.map(({ bar }) => bar)];
        const from = Math.min(...bars.map((bar) => now.placed.place(bar.start)));
        const to = Math.max(...bars.map((bar) => now.placed.place(bar.end)));
        const margin = (to - from) * 0.2 + NARROWEST[isOrder.value ? 'order' : 'time'];
        look({ from: from - margin, to: to + margin });
    }
}
