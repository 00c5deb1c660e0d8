import { expect, test } from 'vitest';

import { asked, isPlayable, optionsOf, parametersOf, replayCommand, stepsOf, withSides } from '../src/panels/duel/options';

test('an address leads back to what it was made of', () => {
    const options = optionsOf({
        strategies: 'none,optimistic,mutex',
        amounts: '10.00,-5.00,1',
        opening: '50.00',
        crashes: '1',
        schedule: 'r1 r2c1',
    });
    expect(options.sides).toEqual([
        { strategy: 'none', amount: '10.00' },
        { strategy: 'optimistic', amount: '-5.00' },
        { strategy: 'mutex', amount: '1' },
    ]);
    expect(options.plan).toEqual(['r1', 'r2', 'c1']);
    expect(optionsOf(parametersOf(options))).toEqual(options);
});

test('what an address leaves out is as usual, and one is for all', () => {
    expect(asked(optionsOf({}))).toEqual({
        strategies: ['none', 'none'],
        amounts: ['10.00', '20.00'],
        openingBalance: '100.00',
        operations: 2,
    });
    expect(optionsOf({ strategies: 'mutex', amounts: '1,2,3' }).sides.map((side) => side.strategy)).toEqual(
        ['mutex', 'mutex', 'mutex'],
    );
    expect(optionsOf({ strategies: 'mutex,none', amounts: '7' }).sides.map((side) => side.amount)).toEqual(['7', '7']);
});

test('no address makes more sides or steps than there is room for', () => {
    expect(optionsOf({ strategies: 'a,b,c,d,e' }).sides).toHaveLength(3);
    expect(optionsOf({ strategies: 'a' }).sides).toHaveLength(2);
    expect(stepsOf('r1 '.repeat(1000))).toHaveLength(200);
    expect(stepsOf('r1 <b> ?? k22')).toEqual(['r1', 'k2']);
});

test('another number of sides drops the plan and keeps those that stay', () => {
    const two = optionsOf({ strategies: 'none,mutex', amounts: '1,2', schedule: 'r1' });
    const three = withSides(two, 3);
    expect(three.sides[2]).toEqual({ strategy: 'mutex', amount: '30.00' });
    expect(three.plan).toEqual([]);
    expect(withSides(three, 2).sides).toEqual(two.sides);
});

test('sums that the service would refuse are not sent', () => {
    expect(isPlayable(optionsOf({}))).toBe(true);
    for (const amounts of ['0,1', 'x,1', '1.234,1']) {
        expect(isPlayable(optionsOf({ amounts })), amounts).toBe(false);
    }
    expect(isPlayable(optionsOf({ opening: '-1' }))).toBe(false);
    expect(isPlayable(optionsOf({ opening: '' }))).toBe(false);
    expect(isPlayable(optionsOf({ opening: '0' }))).toBe(true);
});

test('a token is played again by the explorer', () => {
    expect(replayCommand('zbl1:x')).toBe('zbl-server explore --replay zbl1:x');
});
