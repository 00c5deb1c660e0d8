// What came of one attack: the verdict large, the figures it rests on, who overwrote whom, and where to look next.
import { linkTo } from '../../route';
import { guarantees, strategies } from '../../strategies';
import { Trouble } from '../../trouble';
import type { AttackResult, LostUpdate } from '../../generated/zbl/v1/lab_service_pb';
import { attack, cure, running, type Ended } from './runs';
import { account, figure, milliseconds, short, type Account, type VerdictName } from './verdict';
import { text } from './words';

const SIGNS: Record<VerdictName, string> = { LOST: '✗', CLEAN: '✓', INCONCLUSIVE: '?' };

/** A verdict as a sign, a word and a color. */
export function VerdictSign({ name }: { readonly name: VerdictName }) {
    return (
        <strong class={`verdict ${name}`} data-test="verdict" data-verdict={name}>
            <span aria-hidden="true">{SIGNS[name]}</span> {text.value.verdicts[name]}
        </strong>
    );
}

/** An attack that is over. */
export function Outcome({ ended }: { readonly ended: Ended }) {
    return (
        <article class="outcome" data-test="outcome" data-strategy={ended.strategy}>
            {ended.is === 'judged' ? <Judged ended={ended} result={ended.result} /> : <Unjudged ended={ended} />}
        </article>
    );
}

function Unjudged({ ended }: { readonly ended: Exclude<Ended, { is: 'judged' }> }) {
    const done = `${ended.progress?.acknowledged ?? 0}`;
    return (
        <>
            <h3><code>{ended.strategy}</code></h3>
            {ended.is === 'stopped' && <p data-test="stopped">{text.value.stopped(done)}</p>}
            {ended.is === 'failed' && <Trouble failure={ended.failure} />}
            {ended.is === 'failed' && ended.progress !== null && <p>{text.value.failedAt(done)}</p>}
        </>
    );
}

function Judged({ ended, result }: { readonly ended: Ended; readonly result: AttackResult }) {
    const seen = account(result);
    const t = text.value;
    return (
        <>
            <h3>
                <code>{result.strategy}</code> <span class="hint">{guarantees.value[result.guarantee]}</span>
            </h3>
            <p class="headline">
                <VerdictSign name={seen.verdict} /> <span>{t.meaning[seen.verdict]}</span>
            </p>
            <Figures result={result} seen={seen} />
            {seen.pairs.length > 0 && <Pairs pairs={seen.pairs} leftOut={seen.pairsLeftOut} />}
            <Next ended={ended} userId={`${result.userId}`} isLost={seen.verdict === 'LOST'} />
        </>
    );
}

function Figures({ result, seen }: { readonly result: AttackResult; readonly seen: Account }) {
    const t = text.value;
    const isLost = seen.verdict === 'LOST';
    const pairs = `${result.lostUpdatesTotal}`;
    const isExplained = seen.addsUp === true && isLost && result.unattributed === '0.00';
    return (
        <dl class="figures">
            <div>
                <dt>{t.sold}</dt>
                <dd class={seen.isOversold ? 'lost' : ''} data-test="sold">
                    {t.soldAgainst(`${result.acknowledged}`, `${result.affordable}`)}
                    {seen.isOversold && <small>✗ {t.oversold}</small>}
                </dd>
            </div>
            <div>
                <dt>{t.expected}</dt>
                <dd data-test="expected-balance">{seen.expected}</dd>
            </div>
            <div>
                <dt>{t.final}</dt>
                <dd data-test="final-balance">{result.finalBalance}</dd>
            </div>
            <div>
                <dt>{t.lost}</dt>
                <dd class={isLost ? 'lost big' : 'kept'}>
                    <span data-test="lost">{result.lost}</span>
                    {isExplained && <small>{t.addsUp(pairs)}</small>}
                    {seen.addsUp === false && <small>{t.apart}</small>}
                    {seen.addsUp === null && <small>{t.partly(seen.pairsSum, result.lostUpdates.length)}</small>}
                    {result.unattributed !== '0.00' && <small>{t.unattributed(result.unattributed)}</small>}
                </dd>
            </div>
            <div>
                <dt>{t.refused}</dt>
                <dd>
                    {`${seen.failedTotal}`}
                    {seen.failed.map(([reason, count]) => (
                        <small key={reason}><code>{reason}</code> {`${count}`}</small>
                    ))}
                </dd>
            </div>
            {result.unknown > 0n && (
                <div>
                    <dt>{t.unknown}</dt>
                    <dd>{`${result.unknown}`}</dd>
                </div>
            )}
            <div>
                <dt>{t.attempts}</dt>
                <dd>{seen.attemptsPerChange === null ? '–' : figure(seen.attemptsPerChange)}</dd>
            </div>
            <div>
                <dt>{t.throughput}</dt>
                <dd>{t.perSecond(figure(result.throughputPerS))}</dd>
            </div>
            <div>
                <dt>{t.latency}</dt>
                <dd>{milliseconds(result.latencyP50Us)} / {milliseconds(result.latencyP99Us)} ms</dd>
            </div>
        </dl>
    );
}

function Pairs({ pairs, leftOut }: { readonly pairs: readonly LostUpdate[]; readonly leftOut: bigint }) {
    const t = text.value;
    return (
        <details open>
            <summary>{t.pairsTitle}</summary>
            <table class="pairs" data-test="pairs">
                <thead>
                    <tr>
                        <th>{t.victim}</th>
                        <th>{t.overwriter}</th>
                        <th class="number">{t.amount}</th>
                    </tr>
                </thead>
                <tbody>
                    {pairs.map((pair) => (
                        <tr key={`${pair.victimRequestId} ${pair.overwriterRequestId}`} data-test="pair">
                            <td>@{`${pair.victimVersion}`} <RequestId id={pair.victimRequestId} /></td>
                            <td>
                                <span aria-hidden="true">→ </span>
                                @{`${pair.overwriterVersion}`} <RequestId id={pair.overwriterRequestId} />
                            </td>
                            <td class="number lost">{pair.amount}</td>
                        </tr>
                    ))}
                </tbody>
            </table>
            {leftOut > 0n && <p class="hint" data-test="pairs-left-out">{t.more(`${leftOut}`)}</p>}
        </details>
    );
}

/** A request id, short until one asks for it by pointer or keyboard. */
function RequestId({ id }: { readonly id: string }) {
    return (
        <span class="request-id mono" tabIndex={0} title={id} aria-label={id}>
            <span class="short">{short(id)}…</span>
            <span class="whole">{id}</span>
        </span>
    );
}

function Next({ ended, userId, isLost }: { readonly ended: Ended; readonly userId: string; readonly isLost: boolean }) {
    const t = text.value;
    const cured = isLost ? cure(strategies.value) : null;
    return (
        <p class="next">
            <span class="hint">{t.next}:</span>
            <a href={linkTo('lanes', { user: userId })} data-test="to-lanes">{t.lanes}</a>
            <a href={linkTo('history', { user: userId })} data-test="to-history">{t.history}</a>
            {cured !== null && (
                <button
                    type="button"
                    class="primary"
                    data-test="cure"
                    disabled={running.value !== null}
                    onClick={() => void attack('one', [cured], ended.plan)}
                >
                    {t.cureIt(cured)}
                </button>
            )}
        </p>
    );
}
