// The run and the search that the panel has open, at most one of the two: the lab has one place for both. Owns their
// streams and their pace; what the messages come to is view.ts's.
import { computed, signal } from '@preact/signals';

import { failure, isCancelled, lab, type Failure } from '../../service';
import { type FindExhausted, type ScheduleResult } from '../../generated/zbl/v1/lab_service_pb';
import { note } from '../../route';
import { asked, optionsOf, parametersOf, stepsOf, type Options } from './options';
import { begun, ended, playedNext, stepped, type View } from './view';

/** How long a run waits for a step before it goes on by itself: as the service says. */
export const IDLE_MS = 60_000;

/** The lab's place is free as soon as the server has noticed that the run before was left: asked for again till then. */
const PLACE_TRIES = 20;
const PLACE_PAUSE_MS = 100;

/** Paces to play at, milliseconds between two steps. */
export const PACES = { slow: 1600, usual: 800, fast: 250 } as const;
export type Pace = keyof typeof PACES;

/** A search, under way or over. */
export type Search =
    | { readonly is: 'searching'; readonly played: bigint }
    | { readonly is: 'found'; readonly result: ScheduleResult }
    | { readonly is: 'exhausted'; readonly exhausted: FindExhausted };

/** What is played with; the form changes it, and a run keeps what it began with. */
export const options = signal<Options>(optionsOf({}));
export const view = signal<View | null>(null);
export const search = signal<Search | null>(null);
export const problem = signal<Failure | null>(null);
export const pace = signal<Pace>('usual');
export const isPlaying = signal(false);
/** Whether a run is being begun or a step is under way. */
export const isBusy = signal(false);
/** When the last step was taken, milliseconds since 1970. */
export const restingSince = signal(0);
export const isRunning = computed(() => view.value !== null && view.value.result === null && isOpen.value);

const isOpen = signal(false);
let open: AbortController | null = null;
/** The steps that were asked for and not told yet. */
let pending: string[] = [];

/** Changes what is played with; a run of something else ends. */
export function choose(next: Options): void {
    leave();
    view.value = null;
    search.value = null;
    options.value = next;
    note(parametersOf(next));
}

/** Ends what is under way: the operations are let go. */
export function leave(): void {
    open?.abort();
    open = null;
    pending = [];
    isOpen.value = false;
    isPlaying.value = false;
    isBusy.value = false;
}

/** Begins a run from the start, on a fresh account; where the plan leads is played step by step. */
export async function begin(): Promise<void> {
    leave();
    view.value = null;
    const mine = opened();
    const { crashes, plan } = options.value;
    // A plan with a crash in it is only possible where operations may crash.
    const request = { ...asked(options.value), crashes: crashes || plan.some((step) => /^[xa]/.test(step)) };
    isBusy.value = true;
    await during(mine, async () => {
        for await (const { event } of placed(() => lab.runSchedule(request, { signal: mine.signal }), mine.signal)) {
            if (event.case === 'begun') {
                view.value = begun(options.value, event.value);
                isBusy.value = false;
            } else if (event.case === 'step' && view.value !== null) {
                const byItself = pending[0] !== event.value.step;
                pending.shift();
                // Not sooner: the choices are those of the step that was told last.
                isBusy.value = pending.length > 0;
                view.value = stepped(view.value, event.value, byItself);
            } else if (event.case === 'result' && view.value !== null) {
                view.value = ended(view.value, event.value);
                // From the start again, it goes the same way.
                options.value = { ...options.value, plan: stepsOf(event.value.schedule) };
                note(parametersOf(options.value));
            }
            restingSince.value = Date.now();
        }
    });
}

/** Takes a step of the run. */
export async function take(step: string): Promise<void> {
    const now = view.value;
    const mine = open;
    if (now === null || mine === null || isBusy.value || !now.choices.includes(step)) {
        return;
    }
    isBusy.value = true;
    pending.push(step);
    try {
        await lab.advanceSchedule({ runId: now.runId, step }, { signal: mine.signal });
    } catch (error) {
        if (!isCancelled(error) && open === mine) {
            problem.value = failure(error);
            isPlaying.value = false;
            isBusy.value = false;
            pending = [];
        }
    }
}

/** The next step while playing; at the end it stops. */
export async function playOn(): Promise<void> {
    const now = view.value;
    const step = now === null ? undefined : playedNext(now, options.value.plan);
    if (step !== undefined) {
        await take(step);
    }
    if (view.value?.choices.length === 0) {
        isPlaying.value = false;
    }
}

/** Plays on from here, or from the start. */
export async function play(): Promise<void> {
    if (isRunning.value) {
        isPlaying.value = true;
        return;
    }
    const running = begin();
    isPlaying.value = true;
    await running;
}

/** Looks for a schedule that loses money; the one that is found becomes the plan, and stands at its start. */
export async function find(): Promise<void> {
    leave();
    view.value = null;
    // Nobody crashes in a search, and the form says so.
    options.value = { ...options.value, crashes: false };
    const mine = opened();
    search.value = { is: 'searching', played: 0n };
    // A call, because the compiler takes a state that it has seen for one that stays.
    const reached = (): Search | null => search.value;
    await during(mine, async () => {
        const request = asked(options.value);
        for await (const { event } of placed(() => lab.findSchedule(request, { signal: mine.signal }), mine.signal)) {
            if (event.case === 'progress') {
                search.value = { is: 'searching', played: event.value.played };
            } else if (event.case === 'found') {
                search.value = { is: 'found', result: event.value };
                options.value = { ...options.value, plan: stepsOf(event.value.schedule) };
                note(parametersOf(options.value));
            } else if (event.case === 'exhausted') {
                search.value = { is: 'exhausted', exhausted: event.value };
            }
        }
    });
    if (open !== mine) {
        return;
    }
    if (reached()?.is === 'found') {
        await begin();
    } else if (reached()?.is === 'searching') {
        search.value = null;
    }
}

function opened(): AbortController {
    const mine = new AbortController();
    open = mine;
    problem.value = null;
    isOpen.value = true;
    return mine;
}

/** Follows a stream to its end, and tells what ended it, unless the reader has gone on to something else. */
async function during(mine: AbortController, work: () => Promise<void>): Promise<void> {
    try {
        await work();
    } catch (error) {
        if (open === mine && !mine.signal.aborted) {
            problem.value = failure(error);
        }
    }
    if (open === mine) {
        isOpen.value = false;
        isPlaying.value = false;
        isBusy.value = false;
    }
}

/** A stream that needs the lab's place, asked for again while that is being given up. */
async function* placed<T>(ask: () => AsyncIterable<T>, end: AbortSignal): AsyncGenerator<T> {
    for (let tries = 1; ; tries += 1) {
        let begun = false;
        try {
            for await (const message of ask()) {
                begun = true;
                yield message;
            }
            return;
        } catch (error) {
            const isTaken = failure(error).reason === 'OVERLOADED';
            if (begun || !isTaken || tries === PLACE_TRIES || end.aborted) {
                throw error;
            }
        }
        await new Promise((resolve) => setTimeout(resolve, PLACE_PAUSE_MS));
    }
}
