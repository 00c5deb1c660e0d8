// Attack: what the visitor sees first. Sets an attack up, shows how it goes and what came of it; one strategy, two beside
// each other, or all. What is typed and chosen stays while the page does.
import { signal, type Signal } from '@preact/signals';

import { Guarantee, type Strategy } from '../generated/zbl/v1/account_service_pb';
import { Copyable } from '../copy';
import { linkTo } from '../route';
import { available, guarantees, strategies, strategyOf, useStrategies } from '../strategies';
import { Comparison } from './attack/comparison';
import { commands, FORM_DEFAULT, isField, understand, type Field, type Form, type Plan, type Wrong } from './attack/form';
import { Outcome } from './attack/result';
import { attack, results, running, stop, type Show } from './attack/runs';
import { text } from './attack/words';
import './attack/attack.css';

const form = signal<Form>(FORM_DEFAULT);
/** What is attacked with, and what that is compared with. */
const chosen = signal('none');
const other = signal('pessimistic');

export function Attack() {
    useStrategies();
    const understood = understand(form.value);
    return (
        <div class="attack">
            <Setting wrong={understood.wrong} plan={understood.plan ?? null} />
            <Beside plan={understood.plan ?? null} />
            <All plan={understood.plan ?? null} />
            {understood.plan !== undefined && <Commands plan={understood.plan} />}
        </div>
    );
}

interface SettingOf {
    readonly wrong: Partial<Record<Field, Wrong>> | undefined;
    readonly plan: Plan | null;
}

function Setting({ wrong, plan }: SettingOf) {
    const t = text.value;
    const last = results.value.one[0];
    const refused = last?.is === 'failed' && isField(last.failure.field) ? last.failure : null;
    const says = (field: Field): string => {
        const reason = wrong?.[field];
        return reason !== undefined ? t.wrong[reason] : refused?.field === field ? refused.message : '';
    };
    return (
        <section>
            <h2>{t.title}</h2>
            <p class="lead">{t.lead}</p>
            <form
                onSubmit={(event) => {
                    event.preventDefault();
                    if (plan !== null) {
                        void attack('one', [chosen.value], plan);
                    }
                }}
            >
                <div class="row">
                    {(Object.keys(FORM_DEFAULT) as Field[]).map((field) => (
                        <Entry key={field} field={field} says={says(field)} />
                    ))}
                    <Choice name="strategy" label={t.strategy} chosen={chosen} />
                    <button class="primary" type="submit" data-test="attack" disabled={!isReady(plan)}>
                        {t.attack}
                    </button>
                </div>
                <About name={chosen.value} />
            </form>
            <Unavailable />
            <Under show="one" />
            {last !== undefined && <Outcome ended={last} />}
        </section>
    );
}

/** Whether an attack can be begun. */
function isReady(plan: Plan | null): plan is Plan {
    return plan !== null && running.value === null && strategies.value.length > 0;
}

function Entry({ field, says }: { readonly field: Field; readonly says: string }) {
    const id = `attack-${field}`;
    return (
        <div class={`field entry ${field}`}>
            <label class="hint" for={id}>{text.value.fields[field]}</label>
            <input
                id={id}
                data-test={id}
                inputMode="decimal"
                autoComplete="off"
                value={form.value[field]}
                aria-invalid={says !== ''}
                aria-describedby={says === '' ? undefined : `${id}-says`}
                onInput={(event) => (form.value = { ...form.value, [field]: event.currentTarget.value })}
            />
            {says !== '' && <small class="lost" id={`${id}-says`} data-test={`${id}-says`}>{says}</small>}
        </div>
    );
}

interface ChoiceOf {
    readonly name: string;
    readonly label: string;
    readonly chosen: Signal<string>;
}

function Choice({ name, label, chosen }: ChoiceOf) {
    const promised = (strategy: Strategy): string =>
        strategy.available ? guarantees.value[strategy.guarantee] : text.value.unavailable;
    return (
        <label class="field">
            <span>{label}</span>
            <select
                data-test={name}
                value={chosen.value}
                onChange={(event) => (chosen.value = event.currentTarget.value)}
            >
                {strategies.value.map((strategy) => (
                    <option key={strategy.name} value={strategy.name} disabled={!strategy.available}>
                        {strategy.name} — {promised(strategy)}
                    </option>
                ))}
            </select>
        </label>
    );
}

function About({ name }: { readonly name: string }) {
    const strategy = strategyOf(name);
    if (strategy === undefined) {
        return <p class="hint">{text.value.waiting}</p>;
    }
    return (
        <p class="about">
            <Promised strategy={strategy} /> — {strategy.summary}
        </p>
    );
}

/** The sign and the color of the two extremes; what lies between is a warning. */
const SIGNS: Partial<Record<Guarantee, readonly [sign: string, kind: string]>> = {
    [Guarantee.ALWAYS]: ['✓', 'kept'],
    [Guarantee.LOSES_UPDATES]: ['✗', 'lost'],
};

/** What a strategy promises, by sign and word. */
function Promised({ strategy }: { readonly strategy: Strategy }) {
    const [sign, kind] = SIGNS[strategy.guarantee] ?? ['△', 'warn'];
    return <strong class={kind} data-test="guarantee">{sign} {guarantees.value[strategy.guarantee]}</strong>;
}

/** Those that cannot be chosen, and why. */
function Unavailable() {
    const missing = strategies.value.filter((strategy) => !strategy.available);
    if (missing.length === 0) {
        return null;
    }
    return (
        <details class="hint">
            <summary>{text.value.unavailable}: {missing.map((strategy) => strategy.name).join(', ')}</summary>
            <ul>
                {missing.map((strategy) => (
                    <li key={strategy.name}><code>{strategy.name}</code>: {strategy.unavailableReason}</li>
                ))}
            </ul>
        </details>
    );
}

/** The attack under way, where its results will be shown. */
function Under({ show }: { readonly show: Show }) {
    const now = running.value;
    if (now?.show !== show) {
        return null;
    }
    const t = text.value;
    const progress = now.progress;
    const userId = progress?.userId ?? 0n;
    const said =
        progress === null
            ? t.beginning
            : t.acknowledged(`${progress.acknowledged}`, `${progress.done}`, `${progress.total}`);
    return (
        <div class="under" data-test="progress">
            <p>
                {t.running(now.strategy, now.number, now.of)}:{' '}
                <span data-test="acknowledged">{said}</span>
                {userId > 0n && <> · <a href={linkTo('lanes', { user: `${userId}` })}>{t.watch}</a></>}
            </p>
            <progress
                aria-label={t.running(now.strategy, now.number, now.of)}
                max={Math.max(1, Number(progress?.total ?? 1n))}
                value={Number(progress?.done ?? 0n)}
            />
            <button type="button" data-test="stop" onClick={stop}>{t.stop}</button>
        </div>
    );
}

function Beside({ plan }: { readonly plan: Plan | null }) {
    const t = text.value;
    return (
        <section>
            <h2>{t.pairTitle}</h2>
            <div class="row">
                <Choice name="pair-one" label={t.strategy} chosen={chosen} />
                <Choice name="pair-other" label={t.against} chosen={other} />
                <button
                    type="button"
                    data-test="attack-pair"
                    disabled={!isReady(plan) || chosen.value === other.value}
                    onClick={() => plan !== null && void attack('pair', [chosen.value, other.value], plan)}
                >
                    {t.pairRun}
                </button>
                <span class="hint">{t.onlyOne}</span>
            </div>
            <Under show="pair" />
            <div class="pair">
                {results.value.pair.map((ended) => (
                    <Outcome key={ended.strategy} ended={ended} />
                ))}
            </div>
        </section>
    );
}

function All({ plan }: { readonly plan: Plan | null }) {
    const t = text.value;
    const names = available.value.map((strategy) => strategy.name);
    return (
        <section>
            <h2>{t.allTitle}</h2>
            <div class="row plain">
                <button
                    type="button"
                    data-test="compare-all"
                    disabled={!isReady(plan)}
                    onClick={() => plan !== null && void attack('all', names, plan)}
                >
                    {t.allRun(names.length)}
                </button>
                <span class="hint">{t.allNote}</span>
            </div>
            <Under show="all" />
            <Comparison all={results.value.all} />
        </section>
    );
}

function Commands({ plan }: { readonly plan: Plan }) {
    const lines = commands(plan, chosen.value, document.location.hostname);
    return (
        <section>
            <h2>{text.value.commands}</h2>
            <p class="hint">{text.value.commandsNote}</p>
            <Copyable line={lines.loadgen} name="command-loadgen" />
            <Copyable line={lines.grpcurl} name="command-grpcurl" />
        </section>
    );
}
