// What a run's messages come to: where each side is and what it holds, what is on the account, and what each step did. A
// message in, a new view out; knows no page and no connection.
import { Phase, type Span, type State } from '../../generated/zbl/v1/timeline_pb';
import {
    OperationState,
    type OperationPosition,
    type ScheduleBegun,
    type ScheduleResult,
    type ScheduleStep,
} from '../../generated/zbl/v1/lab_service_pb';
import { minor } from '../../money';
import type { Options } from './options';

/** A balance at a version, in minor units. */
export interface Held {
    readonly balance: bigint;
    readonly version: bigint;
}

/** One operation, as far as it has come. */
export interface Side {
    /** Its number, from 1. */
    readonly operation: number;
    readonly strategy: string;
    /** What it takes, minor units; negative: a deposit. */
    readonly amount: bigint;
    readonly state: OperationState;
    /** Standing: the phase it stands before; blocked, ended, crashed: the one it was let into last. */
    readonly phase: Phase;
    /** From 1. */
    readonly attempt: number;
    /** What this attempt has read. */
    readonly read: Held | null;
    /** What it is going to write, once that is computed. */
    readonly next: bigint | null;
    /** What this attempt has written. */
    readonly wrote: Held | null;
    readonly committed: boolean;
    /** Why a phase of it failed last; "" where none did. */
    readonly failure: string;
}

/** What a step did, phase by phase; one step may set others free. */
export interface Deed {
    readonly step: string;
    /** Nobody asked for it: the run went on without. */
    readonly byItself: boolean;
    readonly done: readonly Done[];
    /** The operations that wait since then. */
    readonly blocked: readonly number[];
}

/** A phase that ended. */
export interface Done {
    readonly operation: number;
    readonly phase: Phase;
    readonly state: Held | null;
    readonly failure: string;
}

/** A run, so far. */
export interface View {
    readonly runId: string;
    readonly userId: bigint;
    readonly requestIds: readonly string[];
    readonly sides: readonly Side[];
    readonly choices: readonly string[];
    readonly deeds: readonly Deed[];
    /** What is committed. */
    readonly account: Held;
    /** What would be on the account had every committed operation counted, minor units. */
    readonly due: bigint;
    readonly result: ScheduleResult | null;
}

/** A new account's first entry. */
const VERSION_FIRST = 1n;

/** The view of a run that has begun. */
export function begun(options: Options, message: ScheduleBegun): View {
    const opening = minor(options.opening) ?? 0n;
    const sides = options.sides.map((side, at): Side => ({
        operation: at + 1,
        strategy: side.strategy,
        amount: minor(side.amount) ?? 0n,
        state: OperationState.UNSPECIFIED,
        phase: Phase.UNSPECIFIED,
        attempt: 1,
        read: null,
        next: null,
        wrote: null,
        committed: false,
        failure: '',
    }));
    return {
        runId: message.runId,
        userId: message.userId,
        requestIds: message.requestIds,
        sides: sides.map((side) => placed(side, message.positions)),
        choices: message.choices,
        deeds: [],
        account: { balance: opening, version: VERSION_FIRST },
        due: opening,
        result: null,
    };
}

/** The view after a step. */
export function stepped(view: View, message: ScheduleStep, byItself: boolean): View {
    const before = view.sides;
    const moved = before.map((side) => (side.operation === sideOf(message.step) ? letGo(side, message.step) : side));
    let next: View = { ...view, sides: moved };
    const done: Done[] = [];
    for (const span of message.spans) {
        const at = view.requestIds.indexOf(span.requestId);
        const side = next.sides[at];
        if (side !== undefined) {
            done.push(doneBy(side.operation, span));
            next = phaseOver(next, side, span);
        }
    }
    const sides = next.sides.map((side) => placed(side, message.positions));
    const isBlocked = (side: Side | undefined): boolean => side?.state === OperationState.BLOCKED;
    const blocked = sides.filter((side, at) => isBlocked(side) && !isBlocked(before[at])).map((side) => side.operation);
    const deed = { step: message.step, byItself, done, blocked };
    return { ...next, sides, choices: message.choices, deeds: [...view.deeds, deed] };
}

/** The view of a run that is over. What is on the account the result knows best. */
export function ended(view: View, result: ScheduleResult): View {
    const balance = minor(result.finalBalance) ?? view.account.balance;
    return { ...view, choices: [], account: { ...view.account, balance }, result };
}

/** Whose step it is, from 1. */
export function sideOf(step: string): number {
    return Number(step.slice(1));
}

/** The step that a side can take next; a crash only on demand. */
export function nextOf(choices: readonly string[], operation: number): string | undefined {
    return choices.find((step) => sideOf(step) === operation && !step.startsWith('x'));
}

/** The step that a plan has next; undefined where the run has left it, or it is at its end. */
export function planned(view: View, plan: readonly string[]): string | undefined {
    const isOnPlan = view.deeds.every((deed, at) => deed.step === plan[at]);
    const next = isOnPlan ? plan[view.deeds.length] : undefined;
    return next !== undefined && view.choices.includes(next) ? next : undefined;
}

/** What playing takes next: the plan's step, or without one that of the side that has come least far. */
export function playedNext(view: View, plan: readonly string[]): string | undefined {
    const taken = (step: string): number => view.deeds.filter((deed) => sideOf(deed.step) === sideOf(step)).length;
    const passes = view.choices.filter((step) => !step.startsWith('x'));
    const [least] = passes.sort((one, other) => taken(one) - taken(other));
    return planned(view, plan) ?? least;
}

/** The operation whose request that is, from 1; 0 where it is none of them. */
export function operationOf(view: View, requestId: string): number {
    return view.requestIds.indexOf(requestId) + 1;
}

function held(state: State | undefined): Held | null {
    return state === undefined ? null : { balance: minor(state.balance) ?? 0n, version: state.version };
}

const LETTERS: Readonly<Record<string, Phase>> = {
    l: Phase.LOCK_WAIT,
    r: Phase.READ,
    c: Phase.COMPUTE,
    w: Phase.WRITE,
    k: Phase.COMMIT,
};

/** The phase that a step lets an operation into; unspecified for a crash and an answer. */
export function phaseOf(step: string): Phase {
    return LETTERS[step.slice(0, 1)] ?? Phase.UNSPECIFIED;
}

function letGo(side: Side, step: string): Side {
    const phase = phaseOf(step);
    return phase === Phase.UNSPECIFIED ? side : { ...side, phase };
}

function doneBy(operation: number, span: Span): Done {
    const state = span.phase === Phase.READ ? span.seen : span.written;
    return { operation, phase: span.phase, state: span.failed ? null : held(state), failure: span.failure };
}

/** The view after one phase of a side. */
function phaseOver(view: View, side: Side, span: Span): View {
    const again = span.attempt > side.attempt;
    // A new attempt has read nothing yet.
    let now: Side = again ? { ...side, attempt: span.attempt, read: null, next: null, wrote: null } : side;
    let { account, due } = view;
    if (span.failed) {
        now = { ...now, failure: span.failure };
    } else if (span.phase === Phase.READ) {
        now = { ...now, read: held(span.seen), failure: '' };
    } else if (span.phase === Phase.COMPUTE) {
        now = { ...now, next: now.read === null ? null : now.read.balance - now.amount };
    } else if (span.phase === Phase.WRITE) {
        now = { ...now, wrote: held(span.written), failure: '' };
    } else if (span.phase === Phase.COMMIT && !now.committed) {
        account = held(span.written) ?? now.wrote ?? account;
        due -= now.amount;
        now = { ...now, committed: true, failure: '' };
    }
    return { ...view, account, due, sides: view.sides.map((other) => (other === side ? now : other)) };
}

/** A side where the service says it is. */
function placed(side: Side, positions: readonly OperationPosition[]): Side {
    const position = positions.find((one) => one.operation === side.operation);
    if (position === undefined) {
        return side;
    }
    if (position.state !== OperationState.STANDING) {
        return { ...side, state: position.state };
    }
    const again = position.attempt > side.attempt ? { read: null, next: null, wrote: null } : {};
    return { ...side, ...again, state: position.state, phase: position.phase, attempt: Math.max(position.attempt, 1) };
}
