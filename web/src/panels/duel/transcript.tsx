// The steps that were taken and what each did; at the end the verdict, with the means to play it all again.
import { useEffect, useState } from 'preact/hooks';

import { Verdict, type ScheduleResult } from '../../generated/zbl/v1/lab_service_pb';
import { minor } from '../../money';
import { replayCommand } from './options';
import { IDLE_MS, isPlaying, isRunning, options, restingSince } from './run';
import { goneText, shown } from './stage';
import { operationOf, phaseOf, planned, sideOf, type Deed, type Done, type View } from './view';
import { text } from './words';

/** The transcript of a run. */
export function Transcript({ now }: { readonly now: View }) {
    const { plan } = options.value;
    const isOff = plan.length > 0 && now.result === null && now.choices.length > 0 && planned(now, plan) === undefined;
    return (
        <section class="transcript">
            <h2>{text.value.transcript}</h2>
            <p class="mono schedule" data-test="duel-schedule">{now.deeds.map((deed) => deed.step).join(' ')}</p>
            {plan.length > 0 && now.result === null && (
                <p class="hint">
                    {text.value.plan}: <code data-test="duel-plan">{plan.join(' ')}</code> {isOff && text.value.offPlan}
                </p>
            )}
            {isRunning.value && !isPlaying.value && now.choices.length > 0 && <Countdown />}
            {now.deeds.some((deed) => deed.byItself) && (
                <p class="hint" data-test="duel-by-itself">⚠ {text.value.wentOn}</p>
            )}
            {now.deeds.length === 0 ? <p class="hint">{text.value.noSteps}</p> : <Deeds now={now} />}
        </section>
    );
}

function Deeds({ now }: { readonly now: View }) {
    return (
        <table>
            <thead>
                <tr>
                    <th class="number">#</th>
                    <th>{text.value.step}</th>
                    <th>{text.value.did}</th>
                </tr>
            </thead>
            <tbody>
                {now.deeds.map((deed, at) => (
                    <tr key={at} aria-current={at === now.deeds.length - 1 ? 'step' : undefined}>
                        <td class="number">{at + 1}</td>
                        <td class="mono">{deed.step}</td>
                        <td>{deedText(deed)}{deed.byItself && <span class="hint"> · {text.value.byItself}</span>}</td>
                    </tr>
                ))}
            </tbody>
        </table>
    );
}

function deedText({ step, done, blocked }: Deed): string {
    const mine = sideOf(step);
    const said = [...done.map(doneText), ...blocked.map((operation) => text.value.waits(operation))];
    if (step.startsWith('x')) {
        said.unshift(text.value.crashedStep(mine));
    } else if (step.startsWith('a')) {
        said.unshift(text.value.answered(mine));
    }
    return said.length > 0 ? said.join('; ') : text.value.nothing(mine, text.value.phases[phaseOf(step)]);
}

function doneText({ operation, phase, state, failure }: Done): string {
    const what = `${operation}: ${text.value.phases[phase]}`;
    if (failure !== '') {
        return `${what} ✕ ${failure}`;
    }
    return state === null ? what : `${what} ${shown(state)}`;
}

/** How often the countdown is drawn anew, milliseconds. */
const TICK_MS = 1000;

function Countdown() {
    const [now, setNow] = useState(Date.now());
    useEffect(() => {
        const timer = setInterval(() => setNow(Date.now()), TICK_MS);
        return () => clearInterval(timer);
    }, []);
    const left = Math.max(restingSince.value + IDLE_MS - Math.max(now, restingSince.value), 0);
    return <p class="hint" data-test="duel-countdown">{text.value.countdown(Math.ceil(left / 1000))}</p>;
}

/** What came of it. */
export function Ending({ now, result }: { readonly now: View; readonly result: ScheduleResult }) {
    const isLost = result.verdict === Verdict.LOST;
    const says = isLost ? text.value.lost : result.verdict === Verdict.CLEAN ? text.value.clean : text.value.inconclusive;
    const command = replayCommand(result.token);
    return (
        <section class={`ending ${isLost ? 'is-lost' : 'is-kept'}`} role="status">
            <p class="says">
                <strong class={isLost ? 'lost' : 'kept'} data-test="duel-verdict" data-verdict={Verdict[result.verdict]}>
                    {isLost ? '✕' : '✓'} {says}
                </strong>{' '}
                {isLost && <span data-test="duel-lost" data-lost={result.lost}>{goneText(minor(result.lost) ?? 0n)}</span>}
            </p>
            <ul>
                {result.lostUpdates.map((lost) => (
                    <li key={`${lost.victimRequestId} ${lost.overwriterRequestId}`} data-test="duel-overwrote">
                        {text.value.overwrote(
                            operationOf(now, lost.overwriterRequestId),
                            lost.overwriterVersion,
                            operationOf(now, lost.victimRequestId),
                            lost.victimVersion,
                            lost.amount,
                        )}
                    </li>
                ))}
            </ul>
            <p>
                {text.value.final(result.finalBalance)}{' '}
                {result.blocked && `${text.value.someBlocked} `}
                {result.deadlocked && text.value.deadlock}
            </p>
            <p class="replay">
                <span class="hint">{text.value.token}</span> <code data-test="duel-token">{result.token}</code>
                <br />
                <span class="hint">{text.value.replay}</span> <code data-test="duel-command">{command}</code>{' '}
                <Copy copied={command} />
            </p>
        </section>
    );
}

function Copy({ copied }: { readonly copied: string }) {
    const [isDone, setDone] = useState(false);
    const copy = (): void => {
        // Refused where the page is not in a secure context: the command stands there to be selected.
        navigator.clipboard.writeText(copied).then(() => setDone(true), () => setDone(false));
    };
    return <button type="button" data-test="duel-copy" onClick={copy}>{isDone ? text.value.copied : text.value.copy}</button>;
}
