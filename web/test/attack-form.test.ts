import { expect, test } from 'vitest';

import { commands, FORM_DEFAULT, isField, OPERATIONS_MOST, understand } from '../src/panels/attack/form';

test('the form that the page begins with is a plan', () => {
    expect(understand(FORM_DEFAULT).plan).toEqual({ openingBalance: '1000.00', workers: 10, deductions: 10, amount: '10.00' });
    expect(understand({ ...FORM_DEFAULT, amount: ' 7.5 ', opening_balance: '0' }).plan).toMatchObject({
        openingBalance: '0.00',
        amount: '7.50',
    });
});

test('what is wrong is told by its field, all of it', () => {
    expect(understand({ opening_balance: '-1', workers: '1001', deductions: '0', amount: '0.00' }).wrong).toEqual({
        opening_balance: 'negative',
        workers: 'too-many-workers',
        deductions: 'not-a-count',
        amount: 'not-positive',
    });
    expect(understand({ opening_balance: 'x', workers: '1.5', deductions: '1e3', amount: '1.234' }).wrong).toEqual({
        opening_balance: 'not-an-amount',
        workers: 'not-a-count',
        deductions: 'not-a-count',
        amount: 'not-an-amount',
    });
});

test('the bounds are the server’s, to the last operation', () => {
    const of = (workers: number, deductions: number) =>
        understand({ ...FORM_DEFAULT, workers: `${workers}`, deductions: `${deductions}` });
    expect(of(1000, OPERATIONS_MOST / 1000).plan).toBeDefined();
    expect(of(1000, OPERATIONS_MOST / 1000 + 1).wrong).toEqual({ deductions: 'too-many-operations' });
});

test('the same from a terminal', () => {
    const plan = { openingBalance: '50.00', workers: 3, deductions: 2, amount: '1.00' };
    const { loadgen, grpcurl } = commands(plan, 'none', 'localhost');
    expect(loadgen).toBe(
        'loadgen attack --addr localhost:50051 --strategy none --workers 3 --deductions 2 --amount 1.00 --opening 50.00',
    );
    const sent = /-d '(.*)' localhost:50051 zbl\.v1\.LabService\/RunAttack$/.exec(grpcurl)?.[1] ?? '';
    expect(JSON.parse(sent)).toEqual({
        strategy: 'none',
        workers: 3,
        deductions: 2,
        amount: '1.00',
        opening_balance: '50.00',
    });
});

test('a refusal is told at its field where there is one', () => {
    expect(isField('workers')).toBe(true);
    for (const other of ['strategy', '', 'toString', undefined]) {
        expect(isField(other), `${other}`).toBe(false);
    }
});
