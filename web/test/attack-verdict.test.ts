import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { expect, test } from 'vitest';

import { AttackResultSchema, Verdict } from '../src/generated/zbl/v1/lab_service_pb';
import { account, figure, isWide, milliseconds, PAIRS_SHOWN, short, verdictName } from '../src/panels/attack/verdict';

const result = (init: MessageInitShape<typeof AttackResultSchema>) =>
    create(AttackResultSchema, {
        openingBalance: '100.00',
        finalBalance: '80.00',
        acknowledged: 12n,
        acknowledgedAmount: '120.00',
        affordable: 10n,
        lost: '100.00',
        unattributed: '0.00',
        verdict: Verdict.LOST,
        attempts: 30n,
        ...init,
    });
const pairs = (count: number, amount: string) =>
    Array.from({ length: count }, (_, at) => ({ victimRequestId: `${at}`, amount }));

test('what should be there may be less than nothing', () => {
    const seen = account(result({}));
    expect(seen).toMatchObject({ expected: '-20.00', isOversold: true, verdict: 'LOST', attemptsPerChange: 2.5 });
    expect(account(result({ acknowledged: 10n })).isOversold).toBe(false);
    expect(account(result({ acknowledged: 0n })).attemptsPerChange).toBeNull();
});

test('the pairs are added to the cent, and compared with the loss', () => {
    const told = { lostUpdates: pairs(3, '33.33'), lostUpdatesTotal: 3n };
    expect(account(result({ ...told, unattributed: '0.01' }))).toMatchObject({ pairsSum: '99.99', addsUp: true });
    expect(account(result(told)).addsUp).toBe(false);
    expect(account(result({ ...told, lostUpdatesTotal: 4n }))).toMatchObject({ addsUp: null, areAllPairs: false });
});

test('the list is bounded, and says how many it leaves out', () => {
    const seen = account(result({ lostUpdates: pairs(PAIRS_SHOWN + 5, '1.00'), lostUpdatesTotal: 2000n }));
    expect(seen.pairs).toHaveLength(PAIRS_SHOWN);
    expect(seen.pairsLeftOut).toBe(2000n - BigInt(PAIRS_SHOWN));
    expect(account(result({ lostUpdates: pairs(2, '1.00'), lostUpdatesTotal: 2n })).pairsLeftOut).toBe(0n);
});

test('reasons come by how often', () => {
    const seen = account(result({ failed: { CONTENDED: 2n, INSUFFICIENT_BALANCE: 40n } }));
    expect(seen.failed.map(([reason]) => reason)).toEqual(['INSUFFICIENT_BALANCE', 'CONTENDED']);
    expect(seen.failedTotal).toBe(42n);
});

test('a verdict that is not known decides nothing', () => {
    expect([Verdict.UNSPECIFIED, Verdict.INCONCLUSIVE, Verdict.CLEAN, Verdict.LOST].map(verdictName)).toEqual([
        'INCONCLUSIVE',
        'INCONCLUSIVE',
        'CLEAN',
        'LOST',
    ]);
});

test('figures are as long as they are worth', () => {
    expect([1234.5, 56.78, 0.894].map(figure)).toEqual(['1235', '56.8', '0.89']);
    expect(milliseconds(47_712n)).toBe('47.7');
    expect(short('11111111-b71c-4b92-bfc0-d94feb9c3227')).toBe('11111111');
    expect(isWide([1, 21])).toBe(true);
    expect(isWide([1, 20, 0])).toBe(false);
    expect(isWide([5])).toBe(false);
});
