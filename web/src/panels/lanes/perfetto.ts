// Hands a trace to ui.perfetto.dev in a window of its own, as its documentation has it: ping until it answers, then post.
// See https://perfetto.dev/docs/visualization/deep-linking-to-perfetto-ui
const PERFETTO = 'https://ui.perfetto.dev';

/** How often it is asked, and for how long: it has to load first, and may not be reachable at all. */
const PING_EVERY_MS = 100;
const PATIENCE_MS = 15_000;

/** Whether it took the trace; false where no window may be opened or nobody answers. */
export function open(title: string, trace: object): Promise<boolean> {
    const other = window.open(PERFETTO);
    if (other === null) {
        return Promise.resolve(false);
    }
    const buffer = new TextEncoder().encode(JSON.stringify(trace)).buffer;
    return new Promise((resolve) => {
        const asking = setInterval(() => other.postMessage('PING', PERFETTO), PING_EVERY_MS);
        const late = setTimeout(() => end(false), PATIENCE_MS);
        window.addEventListener('message', answered);
        function answered(event: MessageEvent): void {
            if (event.source === other && event.origin === PERFETTO && event.data === 'PONG' && other !== null) {
                other.postMessage({ perfetto: { buffer, title } }, PERFETTO);
                end(true);
            }
        }
        function end(taken: boolean): void {
            clearInterval(asking);
            clearTimeout(late);
            window.removeEventListener('message', answered);
            resolve(taken);
        }
    });
}
