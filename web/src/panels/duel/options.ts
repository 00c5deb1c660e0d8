// What a duel is played with, as the address names it and as the service is asked. Owns the limits of the form; refuses to
// judge what the service judges: strategies and sums go to it as they were typed.
import { minor } from '../../money';

/** As many sides as fit beside each other and have a key of their own; the service takes one more. */
export const SIDES_MOST = 3;
const SIDES_LEAST = 2;

/** Steps taken from an address: far more than any schedule of three operations has. */
const STEPS_MOST = 200;

/** Different sums by default, so that the sum that is gone says whose it was. */
const AMOUNTS = ['10.00', '20.00', '30.00'];
const STRATEGY = 'none';
const OPENING = '100.00';

/** One operation: its strategy, and what it takes (a decimal string; negative: a deposit). */
export interface Contestant {
    readonly strategy: string;
    readonly amount: string;
}

/** What a duel is played with. */
export interface Options {
    readonly sides: readonly Contestant[];
    /** The balance of the fresh account, a decimal string. */
    readonly opening: string;
    readonly crashes: boolean;
    /** The steps to follow, such as `r1`; empty: none are laid down. */
    readonly plan: readonly string[];
}

type Parameters = Readonly<Record<string, string>>;

/** The options that an address names; what it leaves out is as usual. */
export function optionsOf(parameters: Parameters): Options {
    const strategies = listed(parameters.strategies);
    const amounts = listed(parameters.amounts);
    const given = Math.max(strategies.length, amounts.length, SIDES_LEAST);
    const sides = Array.from({ length: Math.min(given, SIDES_MOST) }, (_, at) => ({
        // One for all, or one for each.
        strategy: strategies[at] ?? strategies.at(-1) ?? STRATEGY,
        amount: amounts[at] ?? (amounts.length === 1 ? amounts[0] : AMOUNTS[at]) ?? '',
    }));
    return {
        sides,
        opening: parameters.opening ?? OPENING,
        crashes: parameters.crashes === '1',
        plan: stepsOf(parameters.schedule ?? ''),
    };
}

/** The address's parameters of some options; "" is left out of it. */
export function parametersOf({ sides, opening, crashes, plan }: Options): Parameters {
    return {
        strategies: sides.map((side) => side.strategy).join(','),
        amounts: sides.map((side) => side.amount).join(','),
        opening: opening === OPENING ? '' : opening,
        crashes: crashes ? '1' : '',
        schedule: plan.join(' '),
    };
}

/** The same duel of so many: the new ones fight as the last. */
export function withSides(options: Options, count: number): Options {
    const { sides } = options;
    const added = (at: number): Contestant => ({
        strategy: sides.at(-1)?.strategy ?? STRATEGY,
        amount: AMOUNTS[at] ?? '',
    });
    return { ...options, sides: Array.from({ length: count }, (_, at) => sides[at] ?? added(at)), plan: [] };
}

/** Whether every sum can be sent: an amount is not zero, and the balance not negative. */
export function isPlayable({ sides, opening }: Options): boolean {
    const balance = minor(opening);
    const amounts = sides.map((side) => minor(side.amount));
    return balance !== null && balance >= 0n && amounts.every((amount) => amount !== null && amount !== 0n);
}

/** The steps of a schedule, written with spaces between them or without. */
export function stepsOf(schedule: string): string[] {
    return (schedule.match(/[a-z]\d/g) ?? []).slice(0, STEPS_MOST);
}

/** What RunSchedule and FindSchedule are asked alike. */
export function asked({ sides, opening }: Options) {
    return {
        strategies: sides.map((side) => side.strategy),
        amounts: sides.map((side) => side.amount.trim()),
        openingBalance: opening.trim(),
        operations: sides.length,
    };
}

/** The command that plays a token again. */
export function replayCommand(token: string): string {
    return `zbl-server explore --replay ${token}`;
}

/** A list of an address; a comma at its end adds none. */
function listed(text: string | undefined): string[] {
    return (text ?? '').split(',').map((item) => item.trim()).filter((item) => item !== '');
}
