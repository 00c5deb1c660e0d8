// The lanes: who read, computed and wrote when, and which write destroyed which. Puts the picture, its handles and the list
// of races together; what is held is lanes/ring.ts's, what is looked at lanes/stage.ts's.
import { useSignal } from '@preact/signals';
import { useEffect } from 'preact/hooks';

import { download } from '../download';
import { Phase } from '../generated/zbl/v1/timeline_pb';
import { decimal } from '../money';
import { linkTo, place } from '../route';
import { failure, lab } from '../service';
import { Canvas } from './lanes/canvas';
import { PHASES } from './lanes/draw';
import { ndjson, trace } from './lanes/exports';
import { news, ring, watch } from './lanes/feed';
import './lanes/lanes.css';
import { open as openInPerfetto } from './lanes/perfetto';
import type { Race } from './lanes/ring';
import * as stage from './lanes/stage';
import { text } from './lanes/texts';

/** The accounts that are offered: those with the most races first. */
const OFFERED_MOST = 50;

/** The phases, in the order in which an operation comes to them. */
const LEGEND = [Phase.QUEUED, Phase.LOCK_WAIT, Phase.READ, Phase.COMPUTE, Phase.WRITE, Phase.COMMIT];

const KEYS: Readonly<Record<string, () => void>> = {
    ' ': () => (stage.isPaused.value ? stage.live() : stage.pause(true)),
    ArrowLeft: () => stage.move(-0.2),
    ArrowRight: () => stage.move(0.2),
    '+': () => stage.zoom(0.7),
    '=': () => stage.zoom(0.7),
    '-': () => stage.zoom(1.4),
    '0': () => stage.all(),
    n: () => stage.nextRace(1),
    p: () => stage.nextRace(-1),
    '.': () => stage.walk(1),
    ',': () => stage.walk(-1),
    Escape: () => (stage.chosen.value = null),
};

export function Lanes() {
    useEffect(watch, []);
    useEffect(() => {
        const onKey = (event: KeyboardEvent): void => {
            const act = KEYS[event.key];
            // What is typed is the field's, and a button has the space bar for itself.
            const taken = event.key === ' ' ? 'input, select, textarea, button, a' : 'input, select, textarea';
            const isTaken = event.target instanceof Element && event.target.closest(taken) !== null;
            if (act !== undefined && !isTaken && !event.ctrlKey && !event.metaKey && !event.altKey) {
                event.preventDefault();
                act();
            }
        };
        document.addEventListener('keydown', onKey);
        return () => document.removeEventListener('keydown', onKey);
    }, []);
    useAddress();
    const shot = stage.shot.value;
    return (
        <>
            <section class="lanes-bar">
                <Accounts />
                <Handles />
                <Saving />
            </section>
            <Remarks />
            {shot === null ? (
                <Empty />
            ) : (
                <div class="lanes">
                    <section class="wide">
                        <Legend />
                        <Canvas shot={shot} />
                        <p class="hint">
                            {text.value.keys} {text.value.held(ring.held, ring.dropped)}
                            {stage.isPaused.value && <strong> {text.value.pausedAt}</strong>}
                        </p>
                    </section>
                    <Races races={shot.races} counted={shot.counted} />
                </div>
            )}
        </>
    );
}

/** Follows the address: the account at once, its race as soon as it is held. */
function useAddress(): void {
    const { user = '', race = '', order = '' } = place.value.parameters;
    useEffect(() => {
        stage.isOrder.value = order === '1';
        if (user !== stage.user.value) {
            stage.user.value = user;
            stage.view.value = null;
        }
    }, [user, order]);
    const wanted = stage.shot.value?.races.find((held) => held.k.toString() === race);
    useEffect(() => {
        if (wanted !== undefined && stage.race.value?.k !== wanted.k) {
            stage.showRace(wanted);
        }
    }, [wanted?.k]);
}

function Accounts() {
    const typed = useSignal(stage.user.value);
    const shown = stage.shot.value?.user ?? stage.user.value;
    useEffect(() => {
        typed.value = shown;
    }, [shown]);
    const offered = news.value >= 0 ? [...ring.accounts.values()] : [];
    offered.sort((one, other) => other.counted - one.counted || other.bars.length - one.bars.length);
    return (
        <label class="field">
            <span>{text.value.account}</span>
            <input
                list="lanes-accounts"
                inputMode="numeric"
                data-test="lanes-user"
                placeholder={text.value.choose}
                value={typed.value}
                onInput={(event) => (typed.value = event.currentTarget.value)}
                onChange={(event) => stage.setUser(event.currentTarget.value.trim())}
            />
            <datalist id="lanes-accounts">
                {offered.slice(0, OFFERED_MOST).map((account) => (
                    <option key={account.user} value={account.user}>
                        {`${text.value.races}: ${account.counted}`}
                    </option>
                ))}
            </datalist>
        </label>
    );
}

function Handles() {
    const { pause, live, order, time, orderHint, all, zoomIn, zoomOut, previousRace, nextRace } = text.value;
    const isPaused = stage.isPaused.value;
    return (
        <div class="row">
            <button
                type="button"
                data-test="lanes-pause"
                aria-pressed={isPaused}
                onClick={() => (isPaused ? stage.live() : stage.pause(true))}
            >
                {isPaused ? `▶ ${live}` : `❚❚ ${pause}`}
            </button>
            <button
                type="button"
                data-test="lanes-order"
                title={orderHint}
                aria-pressed={stage.isOrder.value}
                onClick={() => stage.setOrder(!stage.isOrder.value)}
            >
                {stage.isOrder.value ? time : order}
            </button>
            <button type="button" aria-label={zoomIn} onClick={() => stage.zoom(0.7)}>+</button>
            <button type="button" aria-label={zoomOut} onClick={() => stage.zoom(1.4)}>−</button>
            <button type="button" onClick={stage.all}>{all}</button>
            <button type="button" aria-label={previousRace} onClick={() => stage.nextRace(-1)}>‹</button>
            <button type="button" aria-label={nextRace} data-test="lanes-next-race" onClick={() => stage.nextRace(1)}>›</button>
        </div>
    );
}

/** What can be done with what is held: files, another viewer, and forgetting it. */
function Saving() {
    const said = useSignal('');
    const shot = stage.shot.value;
    if (shot === null) {
        return null;
    }
    const { user, placed, races, bands } = shot;
    const toPerfetto = async (): Promise<void> => {
        const made = trace(user, placed.bars, bands);
        if (!(await openInPerfetto(`account ${user}`, made))) {
            download(`lanes-${user}.json`, 'application/json', [JSON.stringify(made)]);
            said.value = text.value.perfettoAway;
        }
    };
    const clear = async (): Promise<void> => {
        await lab.clearTimeline({}).then(stage.live, (error: unknown) => {
            const { reason, message } = failure(error);
            said.value = `${reason} ${message}`;
        });
    };
    return (
        <div class="row">
            <button
                type="button"
                onClick={() => download(`lanes-${user}.ndjson`, 'application/x-ndjson', ndjson(placed.bars, races, ring.instance))}
            >
                {text.value.ndjson}
            </button>
            <button type="button" onClick={() => void toPerfetto()}>{text.value.perfetto}</button>
            <button type="button" onClick={() => void clear()}>{text.value.clear}</button>
            <a href={linkTo('history', { user })}>{text.value.history}</a>
            {said.value !== '' && <span role="status">{said.value}</span>}
        </div>
    );
}

function Remarks() {
    const remarks = news.value >= 0 ? ring.remarks : [];
    if (remarks.length === 0) {
        return null;
    }
    return (
        <p class="remark" role="status" data-test="lanes-remark">
            {remarks.map(({ why, events }) => text.value.remarks[why](events)).join(' · ')}
        </p>
    );
}

function Empty() {
    return (
        <section data-test="lanes-empty">
            <p>{text.value.empty}</p>
            <p>
                {text.value.emptyHint} <a href={linkTo('attack')}>{text.value.attack}</a>
            </p>
        </section>
    );
}

function Legend() {
    const names = text.value.phases;
    return (
        <p class="legend">
            {LEGEND.map((phase) => (
                <span key={phase}>
                    <span class="swatch mono" style={{ background: `var(${PHASES[phase].color})` }} aria-hidden="true">
                        {PHASES[phase].letter}
                    </span>{' '}
                    {names[phase]}
                </span>
            ))}
        </p>
    );
}

function Races({ races, counted }: { readonly races: readonly Race[]; readonly counted: number }) {
    return (
        <section class="races">
            <h2>
                {text.value.races} <span data-test="race-count">{counted}</span>
            </h2>
            {counted > races.length && <p class="hint">{text.value.raceList(races.length, counted)}</p>}
            {counted === 0 && <p class="hint">{text.value.noRaces}</p>}
            <ol>
                {races.toReversed().map((race) => (
                    <li key={race.k}>
                        <button
                            type="button"
                            data-test="race"
                            data-race={race.k}
                            aria-current={stage.race.value?.k === race.k}
                            onClick={() => stage.showRace(race)}
                        >
                            <RaceLine race={race} />
                        </button>
                    </li>
                ))}
            </ol>
        </section>
    );
}

function RaceLine({ race }: { readonly race: Race }) {
    const victims = race.victims.map(({ version }) => `v${version}`).join(', ');
    const more = race.omitted > 0 ? text.value.andMore(race.omitted) : '';
    return (
        <>
            <span>
                <span class="hint">#{race.k}</span> {text.value.overwrote(race.overwriter.version, victims + more)}
            </span>
            <strong class={race.destroyed > 0n ? 'lost' : 'kept'}>{toll(race.destroyed)}</strong>
        </>
    );
}

/** What a write destroyed: most often money, sometimes nothing, and sometimes less than nothing. */
function toll(destroyed: bigint): string {
    const { broughtBack, destroyed: lost, evened } = text.value;
    return destroyed > 0n ? lost(decimal(destroyed)) : destroyed < 0n ? broughtBack(decimal(-destroyed)) : evened;
}
