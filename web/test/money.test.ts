import { expect, test } from 'vitest';

import { decimal, minor, signed } from '../src/money';

test('amounts are minor units, whatever their length', () => {
    expect(minor('10.00')).toBe(1000n);
    expect(minor('0.1')).toBe(10n);
    expect(minor('7')).toBe(700n);
    expect(minor('-0.05')).toBe(-5n);
    expect(minor('92233720368547758.07')).toBe(9223372036854775807n);
});

test('what is no amount is none', () => {
    for (const text of ['', '.5', '1.234', '1e3', '1,00', '+1', 'NaN', '--1']) {
        expect(minor(text), text).toBeNull();
    }
});

test('and they are written as they were read', () => {
    for (const text of ['0.00', '10.00', '-0.05', '-12.30', '92233720368547758.07']) {
        const units = minor(text);
        expect(units === null ? null : decimal(units)).toBe(text);
    }
    expect(signed(-1000n)).toBe('−10.00');
    expect(signed(1000n)).toBe('+10.00');
});
