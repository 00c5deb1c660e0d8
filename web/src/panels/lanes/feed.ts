// The timeline as the page follows it: one ring for as long as the page lives, filled while somebody looks.
import { signal } from '@preact/signals';

import { follow } from '../../link';
import { accounts, lab } from '../../service';
import { Ring } from './ring';

/** How often what came is shown, milliseconds. */
const SHOWN_EVERY_MS = 100;

/** What is held. */
export const ring = new Ring();

/** Grows when something came; whoever shows the ring reads it. */
export const news = signal(0);

/** Where a trace can be looked at: a URL with {trace_id} in it; "" while none is known. */
export const traceUrl = signal('');

/** Follows the timeline until the returned function is called. */
export function watch(): () => void {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const stop = follow(
        'timeline',
        (abort, onHeader) => accounts.streamTimeline(ring.resume, { signal: abort, onHeader }),
        (message) => {
            ring.take(message);
            timer ??= setTimeout(() => {
                timer = undefined;
                news.value += 1;
            }, SHOWN_EVERY_MS);
        },
    );
    void askForTraces();
    return () => {
        clearTimeout(timer);
        stop();
    };
}

/** Asked once. A lab that is closed has no traces to show, and the stream tells what else is wrong. */
async function askForTraces(): Promise<void> {
    if (traceUrl.value === '') {
        const answer = await lab.getStatus({}).catch(() => null);
        traceUrl.value = answer?.status?.traceUrl ?? '';
    }
}
