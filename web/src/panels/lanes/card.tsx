// What there is to say about a phase.
import { decimal } from '../../money';
import { PHASES } from './draw';
import { traceUrl } from './feed';
import type { At, Bar } from './ring';
import { text } from './texts';

function At({ at, test }: { readonly at: At; readonly test: string }) {
    return (
        <dd class="mono">
            <span data-test={`${test}-balance`}>{decimal(at.balance)}</span>@v
            <span data-test={`${test}-version`}>{at.version}</span>
        </dd>
    );
}

/** All of a bar. */
export function About({ bar }: { readonly bar: Bar }) {
    const { card, phases } = text.value;
    return (
        <div role="status" data-test="span-card">
            <strong>
                {PHASES[bar.phase].letter} · {phases[bar.phase]}
            </strong>
            <dl>
                <dt>{card.request}</dt>
                <dd class="mono" data-test="card-request">{bar.request}</dd>
                <dt>{card.strategy}</dt>
                <dd>
                    {bar.strategy} · {card.attempt} {bar.attempt}
                </dd>
                {bar.seen && (
                    <>
                        <dt>{card.read}</dt>
                        <At at={bar.seen} test="card-read" />
                    </>
                )}
                {bar.written && (
                    <>
                        <dt>{card.wrote}</dt>
                        <At at={bar.written} test="card-written" />
                    </>
                )}
                {bar.destroyed !== null && (
                    <>
                        <dt>{card.destroyed}</dt>
                        <dd class="mono lost">{decimal(bar.destroyed)}</dd>
                    </>
                )}
                {bar.failure !== null && (
                    <>
                        <dt>{card.failed}</dt>
                        <dd class="mono">{bar.failure}</dd>
                    </>
                )}
                <dt>{card.took}</dt>
                <dd>{((bar.end - bar.start) / 1e6).toFixed(3)} ms</dd>
                {bar.trace !== '' && (
                    <>
                        <dt>{card.trace}</dt>
                        <dd class="mono">
                            <Trace id={bar.trace} />
                        </dd>
                    </>
                )}
            </dl>
        </div>
    );
}

function Trace({ id }: { readonly id: string }) {
    const url = traceUrl.value.replaceAll('{trace_id}', id);
    if (!/^https?:/.test(url)) {
        return <>{id}</>;
    }
    return (
        <a href={url} target="_blank" rel="noopener noreferrer">
            {id}
        </a>
    );
}
