// Streams that outlive their connection: opened again when they end, with pauses that grow, for as long as somebody wants
// them. Owns what the page says about being connected.
import { computed, signal } from '@preact/signals';

import { failure, isCancelled, token, type Failure } from './service';

/** The first pause before a stream is opened again, milliseconds; it doubles up to the longest. */
const PAUSE_FIRST_MS = 250;
const PAUSE_MOST_MS = 5_000;

/** Refusals that pass by themselves: the server has much to do, or its database is away. */
const PASSING: ReadonlySet<string> = new Set(['RATE_LIMITED', 'OVERLOADED', 'CIRCUIT_OPEN', 'BACKEND_DOWN']);

/** How a stream is. */
export type LinkState =
    | { readonly is: 'opening' }
    | { readonly is: 'live' }
    | { readonly is: 'lost'; readonly failure: Failure; readonly retryAt: number }
    | { readonly is: 'refused'; readonly failure: Failure };

/** Opens a stream that lasts until `end`. */
export type Open<T> = (end: AbortSignal, opened: () => void) => AsyncIterable<T>;

/** How all streams are that the page wants, by name. */
const states = signal<ReadonlyMap<string, LinkState>>(new Map());

/** The worst of them: what the header tells. Nothing wanted is nothing wrong. */
export const connection = computed<LinkState>(() => {
    const all = [...states.value.values()];
    const worst = (['lost', 'refused', 'opening', 'live'] as const).map((is) => all.find((state) => state.is === is));
    return worst.find((state) => state !== undefined) ?? { is: 'live' };
});

/** How the stream of that name is; undefined while nobody wants it. */
export function stateOf(name: string): LinkState | undefined {
    return states.value.get(name);
}

function tell(name: string, state: LinkState | undefined): void {
    const next = new Map(states.value);
    if (state === undefined) {
        next.delete(name);
    } else {
        next.set(name, state);
    }
    states.value = next;
}

/**
 * Opens a stream and hands on what comes, until the returned function is called. A stream that ends or breaks is opened
 * again; one that the server refuses is told as refused, and opened again later where the reason passes, and else (no token,
 * bad request) with another token.
 *
 * `open` is asked anew each time, so that it can resume where the last one stopped. Where a stream may be silent for long,
 * `opened`, given to the call as `onHeader`, tells that the server has answered.
 */
export function follow<T>(name: string, open: Open<T>, take: (message: T) => void): () => void {
    const ended = new AbortController();
    void keepOpen(name, open, take, ended.signal).finally(() => tell(name, undefined));
    return () => ended.abort();
}

async function keepOpen<T>(name: string, open: Open<T>, take: (message: T) => void, end: AbortSignal): Promise<void> {
    let pause = PAUSE_FIRST_MS;
    const opened = (): void => {
        if (stateOf(name)?.is === 'opening') {
            pause = PAUSE_FIRST_MS;
            tell(name, { is: 'live' });
        }
    };
    // A call, because the compiler takes a flag that it has seen for one that stays.
    const isOver = (): boolean => end.aborted;
    while (!isOver()) {
        tell(name, { is: 'opening' });
        let why: Failure = { reason: '', message: 'the stream ended', away: true };
        try {
            for await (const message of open(end, opened)) {
                opened();
                take(message);
            }
        } catch (error) {
            if (isOver() || isCancelled(error)) {
                return;
            }
            why = failure(error);
        }
        const passes = PASSING.has(why.reason);
        if (!why.away && !passes) {
            tell(name, { is: 'refused', failure: why });
            await anotherToken(end);
            continue;
        }
        // Half to the whole of the pause: pages that lost the same server do not come back all at once.
        const wait = pause * (0.5 + Math.random() / 2);
        tell(name, passes ? { is: 'refused', failure: why } : { is: 'lost', failure: why, retryAt: Date.now() + wait });
        await sleep(wait, end);
        pause = Math.min(pause * 2, PAUSE_MOST_MS);
    }
}

/** Waits, or until the signal. */
function sleep(ms: number, end: AbortSignal): Promise<void> {
    return until(end, (done) => {
        const timer = setTimeout(done, ms);
        return () => clearTimeout(timer);
    });
}

/** Waits until the reader gives another token, or until the signal. */
function anotherToken(end: AbortSignal): Promise<void> {
    const refused = token.value;
    return until(end, (done) => token.subscribe((next) => next !== refused && done()));
}

/** Waits for what calls `done`, or for the signal; `begin` returns how to stop waiting. */
function until(end: AbortSignal, begin: (done: () => void) => () => void): Promise<void> {
    return new Promise((resolve) => {
        const stop = begin(done);
        end.addEventListener('abort', done);
        function done(): void {
            end.removeEventListener('abort', done);
            resolve();
            // Not at once: what is being begun may call back before it is known how to stop it.
            queueMicrotask(() => stop());
        }
    });
}
