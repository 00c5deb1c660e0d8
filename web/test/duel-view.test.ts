import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { expect, test } from 'vitest';

import {
    OperationState,
    ScheduleBegunSchema,
    ScheduleResultSchema,
    ScheduleStepSchema,
} from '../src/generated/zbl/v1/lab_service_pb';
import { Phase, type SpanSchema } from '../src/generated/zbl/v1/timeline_pb';
import { optionsOf } from '../src/panels/duel/options';
import { begun, ended, nextOf, operationOf, planned, playedNext, stepped, type View } from '../src/panels/duel/view';

type Span = Exclude<MessageInitShape<typeof SpanSchema>, { $typeName: 'zbl.v1.Span'; userId: bigint }>;
type Place = readonly [OperationState, Phase?, number?];

const { STANDING, BLOCKED, ENDED } = OperationState;
const IDS = ['id-1', 'id-2'];

function positions(places: readonly Place[]) {
    return places.map(([state, phase, attempt], at) => ({ operation: at + 1, state, phase: phase ?? Phase.UNSPECIFIED, attempt: attempt ?? 1 }));
}

function start(): View {
    return begun(
        optionsOf({ strategies: 'none,none', amounts: '10.00,20.00' }),
        create(ScheduleBegunSchema, {
            runId: 'run',
            userId: 7n,
            requestIds: IDS,
            positions: positions([[STANDING, Phase.READ], [STANDING, Phase.READ]]),
            choices: ['r1', 'r2', 'x1', 'x2'],
        }),
    );
}

function step(view: View, name: string, places: readonly Place[], spans: readonly Span[], choices: string[] = []): View {
    const message = { step: name, positions: positions(places), spans: [...spans], choices };
    return stepped(view, create(ScheduleStepSchema, message), false);
}

function span(operation: number, phase: Phase, more: Span = {}): Span {
    return { requestId: `id-${operation}`, phase, attempt: 1, ...more };
}

const at = (balance: string, version: bigint) => ({ balance, version });

/** Both have read and computed, 1 has written and 2 waits for its lock. */
function blocked(): View {
    let view = step(start(), 'r1', [[STANDING, Phase.COMPUTE], [STANDING, Phase.READ]], [
        span(1, Phase.READ, { seen: at('100.00', 1n) }),
    ]);
    view = step(view, 'r2', [[STANDING, Phase.COMPUTE], [STANDING, Phase.COMPUTE]], [
        span(2, Phase.READ, { seen: at('100.00', 1n) }),
    ]);
    view = step(view, 'c1', [[STANDING, Phase.WRITE], [STANDING, Phase.COMPUTE]], [span(1, Phase.COMPUTE)]);
    view = step(view, 'c2', [[STANDING, Phase.WRITE], [STANDING, Phase.WRITE]], [span(2, Phase.COMPUTE)]);
    view = step(view, 'w1', [[STANDING, Phase.COMMIT], [STANDING, Phase.WRITE]], [
        span(1, Phase.WRITE, { written: at('90.00', 2n) }),
    ]);
    return step(view, 'w2', [[STANDING, Phase.COMMIT], [BLOCKED]], [], ['k1']);
}

test('a run begins with the opening balance and nothing read', () => {
    const view = start();
    expect(view.account).toEqual({ balance: 10_000n, version: 1n });
    expect(view.sides[1]).toMatchObject({ operation: 2, amount: 2000n, state: STANDING, phase: Phase.READ, read: null });
});

test('a side holds what it read, what it would write and what it wrote', () => {
    const [first, second] = blocked().sides;
    expect(first).toMatchObject({
        read: { balance: 10_000n, version: 1n },
        next: 9000n,
        wrote: { balance: 9000n, version: 2n },
        committed: false,
        phase: Phase.COMMIT,
    });
    expect(second).toMatchObject({ next: 8000n, wrote: null, state: BLOCKED, phase: Phase.WRITE });
});

test('what is written counts only when it is committed, and what is overwritten is missed', () => {
    let view = blocked();
    expect(view.account.balance).toBe(10_000n);
    expect(view.deeds.at(-1)).toEqual({ step: 'w2', byItself: false, done: [], blocked: [2] });
    // The commit of 1 sets 2 free.
    view = step(view, 'k1', [[ENDED], [STANDING, Phase.COMMIT]], [
        span(1, Phase.COMMIT, { written: at('90.00', 2n) }),
        span(2, Phase.WRITE, { written: at('80.00', 3n) }),
    ]);
    expect(view.account).toEqual({ balance: 9000n, version: 2n });
    expect(view.due).toBe(9000n);
    expect(view.sides.map((side) => side.committed)).toEqual([true, false]);
    expect(view.deeds.at(-1)?.done.map(({ operation, state }) => [operation, state?.balance])).toEqual([
        [1, 9000n],
        [2, 8000n],
    ]);
    view = step(view, 'k2', [[ENDED], [ENDED]], [span(2, Phase.COMMIT, { written: at('80.00', 3n) })]);
    expect([view.account.balance, view.due]).toEqual([8000n, 7000n]);
});

test('another attempt has read nothing yet, and says why there is one', () => {
    let view = step(blocked(), 'k1', [[ENDED], [STANDING, Phase.READ, 2]], [
        span(1, Phase.COMMIT, { written: at('90.00', 2n) }),
        span(2, Phase.WRITE, { failed: true, failure: 'OVERTAKEN' }),
    ]);
    expect(view.sides[1]).toMatchObject({ attempt: 2, read: null, next: null, wrote: null, failure: 'OVERTAKEN' });
    view = step(view, 'r2', [[ENDED], [STANDING, Phase.COMPUTE, 2]], [
        span(2, Phase.READ, { seen: at('90.00', 2n), attempt: 2 }),
    ]);
    expect(view.sides[1]).toMatchObject({ read: { balance: 9000n, version: 2n }, failure: '' });
});

test('a commit that failed leaves the account as it was', () => {
    const view = step(blocked(), 'k1', [[ENDED], [BLOCKED]], [span(1, Phase.COMMIT, { failed: true, failure: 'LINK_LOST' })]);
    expect([view.account.balance, view.due, view.sides[0]?.committed]).toEqual([10_000n, 10_000n, false]);
    expect(view.deeds.at(-1)?.blocked, 'it waited before').toEqual([]);
});

test('a commit that is told twice counts once', () => {
    const commit = span(1, Phase.COMMIT, { written: at('90.00', 2n) });
    expect(step(blocked(), 'k1', [[ENDED], [BLOCKED]], [commit, commit]).due).toBe(9000n);
});

test('the end says what is on the account, and nothing can be chosen any more', () => {
    const view = ended(blocked(), create(ScheduleResultSchema, { finalBalance: '80.00' }));
    expect(view.account.balance).toBe(8000n);
    expect(view.choices).toEqual([]);
    expect([operationOf(view, 'id-2'), operationOf(view, 'nobody')]).toEqual([2, 0]);
});

test('a side goes on by its own step, and never crashes unasked', () => {
    expect(nextOf(['r1', 'x1', 'w2'], 2)).toBe('w2');
    expect(nextOf(['x1', 'r1'], 1)).toBe('r1');
    expect(nextOf(['x1'], 1)).toBeUndefined();
});

test('a plan is followed until it is left or over', () => {
    const view = start();
    expect(planned(view, ['r2', 'r1'])).toBe('r2');
    expect(planned(view, ['w1']), 'that cannot be taken').toBeUndefined();
    const next = step(view, 'r1', [[STANDING, Phase.COMPUTE], [STANDING, Phase.READ]], [], ['c1', 'r2', 'x1']);
    expect(planned(next, ['r1', 'c1'])).toBe('c1');
    expect(planned(next, ['r2', 'r2', 'c1']), 'it was left').toBeUndefined();
    expect(planned(next, ['r1'])).toBeUndefined();
    expect(playedNext(next, ['r1', 'x1']), 'a plan may crash').toBe('x1');
    expect(playedNext(next, []), 'whoever has come least far').toBe('r2');
});
