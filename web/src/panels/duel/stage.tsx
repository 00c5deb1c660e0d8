// The operations beside each other and the balance between them: where each is, what it holds, and its next step.
import { OperationAnswer, OperationState } from '../../generated/zbl/v1/lab_service_pb';
import { Phase } from '../../generated/zbl/v1/timeline_pb';
import { decimal } from '../../money';
import { isBusy, isRunning, options, take } from './run';
import { nextOf, phaseOf, planned, sideOf, type Held, type Side, type View } from './view';
import { text } from './words';

/** The whole stage. */
export function Stage({ now }: { readonly now: View }) {
    const [first, ...others] = now.sides;
    return (
        <div class="stage">
            {first !== undefined && <Column now={now} side={first} />}
            <Account now={now} />
            {others.map((side) => <Column key={side.operation} now={now} side={side} />)}
        </div>
    );
}

/** A state as it is written in the columns: the balance, and at which version. */
export function shown(state: Held): string {
    return `${decimal(state.balance)} @${state.version}`;
}

/** What is gone: deductions, or, of a negative sum, deposits. Minor units. */
export function goneText(sum: bigint): string {
    return sum < 0n ? text.value.depositsGone(decimal(-sum)) : text.value.deductionsGone(decimal(sum));
}

/** The CSS name of a phase's color. */
export function phaseClass(phase: Phase): string {
    return `phase-${Phase[phase].toLowerCase().replace('_', '-')}`;
}

function Column({ now, side }: { readonly now: View; readonly side: Side }) {
    const isBlocked = side.state === OperationState.BLOCKED;
    const sum = side.amount < 0n ? text.value.deposits(decimal(-side.amount)) : text.value.takes(decimal(side.amount));
    return (
        <article
            class={`side ${isBlocked ? 'blocked' : ''}`}
            aria-label={`${text.value.operation} ${side.operation}`}
            data-test="duel-side"
            data-operation={side.operation}
            data-state={OperationState[side.state].toLowerCase()}
        >
            <header>
                <strong>{side.operation}</strong>
                <span><code>{side.strategy}</code> {sum}</span>
            </header>
            <p class={`where ${phaseClass(side.phase)}`} data-test="duel-where">
                {whereabouts(side)}
                {side.attempt > 1 && <span class="attempt">{text.value.attempt(side.attempt)}</span>}
            </p>
            <dl>
                <Value name={text.value.read} test="duel-read" value={side.read === null ? '' : shown(side.read)} />
                <Value name={text.value.would} test="duel-would" value={side.next === null ? '' : decimal(side.next)} />
                <Value name={text.value.wrote} test="duel-wrote" value={side.wrote === null ? '' : shown(side.wrote)}>
                    {side.wrote !== null && (
                        <span class={side.committed ? 'kept' : 'hint'}>
                            {side.committed ? `✓ ${text.value.committed}` : text.value.uncommitted}
                        </span>
                    )}
                </Value>
                {side.failure !== '' && <Value name={text.value.failed} test="duel-failed" value={side.failure} />}
                <Outcome now={now} side={side} />
            </dl>
            <Steps now={now} side={side} />
        </article>
    );
}

function whereabouts(side: Side): string {
    const phase = text.value.phases[side.phase];
    switch (side.state) {
        case OperationState.STANDING:
            return side.phase === Phase.UNSPECIFIED ? `◆ ${text.value.answering}` : `◆ ${text.value.before(phase)}`;
        case OperationState.BLOCKED:
            return `‖ ${text.value.blocked(phase)}`;
        case OperationState.ENDED:
            return `■ ${text.value.ended}`;
        case OperationState.CRASHED:
            return `✕ ${text.value.crashed}`;
        default:
            return text.value.idle;
    }
}

interface ValueProperties {
    readonly name: string;
    readonly test: string;
    readonly value: string;
    readonly children?: preact.ComponentChildren;
}

function Value({ name, test, value, children }: ValueProperties) {
    return (
        <div>
            <dt>{name}</dt>
            <dd data-test={test}>{value === '' ? '–' : value} {children}</dd>
        </div>
    );
}

function Outcome({ now, side }: { readonly now: View; readonly side: Side }) {
    const outcome = now.result?.outcomes[side.operation - 1];
    if (outcome === undefined) {
        return null;
    }
    const answer = text.value.answers[outcome.answer];
    const more = outcome.answer === OperationAnswer.REFUSED ? `: ${outcome.refusal}` : '';
    return <Value name={text.value.outcome} test="duel-outcome" value={`${answer}${more}`} />;
}

function Steps({ now, side }: { readonly now: View; readonly side: Side }) {
    const next = nextOf(now.choices, side.operation);
    const laidDown = planned(now, options.value.plan);
    const crashes = now.choices.filter((step) => step.startsWith('x') && sideOf(step) === side.operation);
    const isStill = !isRunning.value || isBusy.value;
    return (
        <div class="row steps">
            {next !== undefined && (
                <button
                    type="button"
                    class={next === laidDown || laidDown === undefined ? 'primary' : ''}
                    disabled={isStill}
                    data-test="duel-step"
                    data-step={next}
                    onClick={() => void take(next)}
                >
                    {side.operation}: {text.value.phases[phaseOf(next)]}
                </button>
            )}
            {crashes.map((step) => (
                <button
                    key={step}
                    type="button"
                    disabled={isStill}
                    data-test="duel-step"
                    data-step={step}
                    onClick={() => void take(step)}
                >
                    ✕ {text.value.crash(side.operation)}
                </button>
            ))}
        </div>
    );
}

function Account({ now }: { readonly now: View }) {
    const gone = now.account.balance - now.due;
    // Too much is there where a deduction was lost, too little where a deposit was.
    const says = gone === 0n ? text.value.agrees : goneText(gone);
    return (
        <div class="account" aria-live="polite">
            <span class="hint">{text.value.balance}</span>
            <strong data-test="duel-balance">{decimal(now.account.balance)}</strong>
            <span class="hint">{text.value.version(now.account.version)} · {text.value.account(now.userId)}</span>
            <span>{text.value.due(decimal(now.due))}</span>
            <span class={gone === 0n ? 'kept' : 'lost'} data-test="duel-difference">
                {gone === 0n ? '✓' : '≠'} {says}
            </span>
        </div>
    );
}
