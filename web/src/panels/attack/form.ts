// What the reader asks for, as text in fields, and as the request it makes. Pure: no page, no call. The server's bounds are
// checked here only so that they are told at once; the server has the last word.
import { decimal, minor } from '../../money';

/** The fields, as they were typed. Their names are those of RunAttackRequest. */
export interface Form {
    readonly opening_balance: string;
    readonly workers: string;
    readonly deductions: string;
    readonly amount: string;
}
export type Field = keyof Form;

/** An attack that any computer does in a second and that still races. */
export const FORM_DEFAULT: Form = { opening_balance: '1000.00', workers: '10', deductions: '10', amount: '10.00' };

/** The server's: each worker holds a call, and the history of an attack is held in memory. */
export const WORKERS_MOST = 1000;
export const OPERATIONS_MOST = 100_000;

/** What is asked for, understood. Amounts are decimal strings of two decimals. */
export interface Plan {
    readonly openingBalance: string;
    readonly workers: number;
    readonly deductions: number;
    readonly amount: string;
}

/** What is wrong with a field. */
export type Wrong =
    | 'not-an-amount'
    | 'not-positive'
    | 'negative'
    | 'not-a-count'
    | 'too-many-workers'
    | 'too-many-operations';

/** The plan, or what is wrong by field. */
export type Understood =
    | { readonly plan: Plan; readonly wrong?: never }
    | { readonly wrong: Partial<Record<Field, Wrong>>; readonly plan?: never };

function count(text: string): number | null {
    const value = /^\d{1,9}$/.test(text.trim()) ? Number(text) : 0;
    return value > 0 ? value : null;
}

/** Understands a form. */
export function understand(form: Form): Understood {
    const wrong: Partial<Record<Field, Wrong>> = {};
    const [opening, amount] = [minor(form.opening_balance), minor(form.amount)];
    const [workers, deductions] = [count(form.workers), count(form.deductions)];
    if (opening === null) {
        wrong.opening_balance = 'not-an-amount';
    } else if (opening < 0n) {
        wrong.opening_balance = 'negative';
    }
    if (amount === null) {
        wrong.amount = 'not-an-amount';
    } else if (amount <= 0n) {
        wrong.amount = 'not-positive';
    }
    if (workers === null) {
        wrong.workers = 'not-a-count';
    } else if (workers > WORKERS_MOST) {
        wrong.workers = 'too-many-workers';
    }
    if (deductions === null) {
        wrong.deductions = 'not-a-count';
    } else if (workers !== null && workers * deductions > OPERATIONS_MOST) {
        wrong.deductions = 'too-many-operations';
    }
    const isWrong = Object.keys(wrong).length > 0;
    if (isWrong || opening === null || amount === null || workers === null || deductions === null) {
        return { wrong };
    }
    return { plan: { openingBalance: decimal(opening), workers, deductions, amount: decimal(amount) } };
}

/** Whether a name of the contract is one of the form's fields. */
export function isField(name: string | undefined): name is Field {
    return name !== undefined && Object.hasOwn(FORM_DEFAULT, name);
}

/** The same attack from a terminal. Nothing in it means anything to a shell but its own quotes. */
export function commands(plan: Plan, strategy: string, host: string): Record<'loadgen' | 'grpcurl', string> {
    const { openingBalance, workers, deductions, amount } = plan;
    const request = { strategy, workers, deductions, amount, opening_balance: openingBalance };
    const address = `${host}:50051`;
    return {
        loadgen:
            `loadgen attack --addr ${address} --strategy ${strategy} --workers ${workers} --deductions ${deductions}` +
            ` --amount ${amount} --opening ${openingBalance}`,
        grpcurl: `grpcurl -plaintext -d '${JSON.stringify(request)}' ${address} zbl.v1.LabService/RunAttack`,
    };
}
