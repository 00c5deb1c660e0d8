// Streams that break, as the page lives through them. The service is left out: what counts is what it says of an error.
import { Code, ConnectError } from '@connectrpc/connect';
import { signal } from '@preact/signals';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';

const REASONS: Partial<Record<Code, string>> = {
    [Code.Unauthenticated]: 'UNAUTHENTICATED',
    [Code.ResourceExhausted]: 'OVERLOADED',
};
const token = signal('');
vi.mock('../src/service', () => ({
    token,
    failure: (error: ConnectError) => ({
        reason: REASONS[error.code] ?? '',
        message: error.rawMessage,
        away: REASONS[error.code] === undefined,
    }),
    isCancelled: (error: unknown) => ConnectError.from(error).code === Code.Canceled,
}));
const { connection, follow, stateOf } = await import('../src/link');

/** A stream that says what it is told to, and then breaks or goes on until its end. */
async function* stream(messages: readonly number[], breaks: ConnectError | null, end: AbortSignal) {
    yield* messages;
    if (breaks !== null) {
        throw breaks;
    }
    await new Promise((resolve) => end.addEventListener('abort', resolve));
    throw new ConnectError('given up', Code.Canceled);
}

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

test('a stream that breaks is opened again, later each time, and told as lost meanwhile', async () => {
    const away = new ConnectError('nobody there', Code.Unavailable);
    const opened: number[] = [];
    const taken: number[] = [];
    const plan = [[1], [], [], [2]];
    const end = follow(
        'broken',
        (signal) => {
            opened.push(Date.now());
            return stream(plan[opened.length - 1] ?? [], opened.length < 4 ? away : null, signal);
        },
        (message) => taken.push(message),
    );
    await vi.advanceTimersByTimeAsync(0);
    expect(taken).toEqual([1]);
    expect(connection.value).toMatchObject({ is: 'lost', failure: { message: 'nobody there' } });
    await vi.advanceTimersByTimeAsync(10_000);
    expect(taken).toEqual([1, 2]);
    expect(stateOf('broken')).toEqual({ is: 'live' });
    const pauses = opened.slice(1).map((at, index) => at - (opened[index] ?? 0));
    for (const [index, pause] of pauses.entries()) {
        expect(pause).toBeGreaterThanOrEqual(125 * 2 ** index);
        expect(pause).toBeLessThanOrEqual(250 * 2 ** index);
    }
    end();
    await vi.advanceTimersByTimeAsync(0);
    expect(stateOf('broken')).toBeUndefined();
});

test('one that is refused waits for another token', async () => {
    const refused = new ConnectError('who are you?', Code.Unauthenticated);
    let opened = 0;
    const end = follow('guarded', (signal) => stream([], opened++ === 0 ? refused : null, signal), () => undefined);
    await vi.advanceTimersByTimeAsync(60_000);
    expect(opened).toBe(1);
    expect(connection.value).toMatchObject({ is: 'refused', failure: { reason: 'UNAUTHENTICATED' } });
    token.value = 'secret';
    await vi.advanceTimersByTimeAsync(0);
    expect(opened).toBe(2);
    end();
    await vi.advanceTimersByTimeAsync(0);
});

test('one that is refused for what passes is asked for again, later each time', async () => {
    const full = new ConnectError('too many watch', Code.ResourceExhausted);
    let opened = 0;
    const end = follow('crowded', (signal) => stream([], opened++ < 3 ? full : null, signal), () => undefined);
    await vi.advanceTimersByTimeAsync(0);
    expect(connection.value).toMatchObject({ is: 'refused', failure: { reason: 'OVERLOADED' } });
    await vi.advanceTimersByTimeAsync(10_000);
    expect(opened).toBe(4);
    end();
    await vi.advanceTimersByTimeAsync(0);
});

test('nobody waits for a stream that is not wanted any more', async () => {
    let opened = 0;
    const away = new ConnectError('nobody there', Code.Unavailable);
    const end = follow('left', (signal) => (opened++, stream([], away, signal)), () => undefined);
    await vi.advanceTimersByTimeAsync(0);
    end();
    await vi.advanceTimersByTimeAsync(60_000);
    expect(opened).toBe(1);
    expect(stateOf('left')).toBeUndefined();
});
