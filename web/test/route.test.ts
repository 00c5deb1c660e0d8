import { expect, test, vi } from 'vitest';

vi.stubGlobal('document', { location: { hash: '' } });
vi.stubGlobal('window', { addEventListener: () => undefined });
const { linkTo, placeOf } = await import('../src/route');

test('a link leads where it was made for', () => {
    const parameters = { user: '7', schedule: 'r1 r2 w1', note: 'a&b=c' };
    expect(placeOf(linkTo('lanes', parameters))).toEqual({ panel: 'lanes', parameters });
});

test('what is empty is not named', () => {
    expect(linkTo('lanes', { user: '7', race: '' })).toBe('#/lanes?user=7');
    expect(linkTo('attack')).toBe('#/attack');
    expect(placeOf('')).toEqual({ panel: '', parameters: {} });
});
