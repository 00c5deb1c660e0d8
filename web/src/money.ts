// Amounts: decimal strings of two decimals on the wire, minor units as bigint in here, never a float.

/** A decimal string of the contract in minor units; null where it is none. */
export function minor(text: string): bigint | null {
    const match = /^(-?)(\d{1,17})(?:\.(\d{1,2}))?$/.exec(text.trim());
    if (match === null) {
        return null;
    }
    const [, sign, whole = '0', decimals = ''] = match;
    const units = BigInt(whole) * 100n + BigInt(decimals.padEnd(2, '0'));
    return sign === '-' ? -units : units;
}

/** Minor units as a decimal string. */
export function decimal(units: bigint): string {
    const absolute = units < 0n ? -units : units;
    const decimals = (absolute % 100n).toString().padStart(2, '0');
    return `${units < 0n ? '-' : ''}${absolute / 100n}.${decimals}`;
}

/** The same with a sign in any case, the minus as typographers have it. */
export function signed(units: bigint): string {
    return units < 0n ? `−${decimal(-units)}` : `+${decimal(units)}`;
}
