// The panel Duel: real operations on one account, stepped through by the reader. Owns its layout, the keys and the
// pace; the run itself is run.ts's.
import { useEffect } from 'preact/hooks';

import { place } from '../route';
import { strategies, useStrategies } from '../strategies';
import './duel/duel.css';
import { Code } from './duel/code';
import { optionsOf } from './duel/options';
import {
    choose,
    isBusy,
    isPlaying,
    isRunning,
    leave,
    options,
    pace,
    PACES,
    playOn,
    problem,
    search,
    take,
    view,
} from './duel/run';
import { Setup } from './duel/setup';
import { Stage } from './duel/stage';
import { Ending, Transcript } from './duel/transcript';
import { nextOf } from './duel/view';
import { text } from './duel/words';

export function Duel() {
    useStrategies();
    useAddress();
    useKeys();
    usePace();
    const now = view.value;
    const keys = options.value.sides.map((_, at) => at + 1).join(', ');
    return (
        <div class="duel">
            <section>
                <h2>{text.value.title}</h2>
                <p class="hint">{text.value.hint}</p>
                <Setup strategies={strategies.value} />
                <Findings />
                {problem.value !== null && (
                    <p class="failure" role="alert" data-test="duel-problem">
                        {problem.value.message} {problem.value.reason !== '' && <code>{problem.value.reason}</code>}
                    </p>
                )}
            </section>
            <div class="beside">
                <div>
                    {now !== null && (
                        <section>
                            <Stage now={now} />
                            {isRunning.value && <p class="hint">{text.value.keys(keys)}</p>}
                        </section>
                    )}
                    {now?.result != null && <Ending now={now} result={now.result} />}
                    {now !== null && <Transcript now={now} />}
                </div>
                <Code now={now} strategies={strategies.value.map((strategy) => strategy.name)} />
            </div>
        </div>
    );
}

/** What a search is at, or has found. */
function Findings() {
    const now = search.value;
    if (now === null) {
        return null;
    }
    if (now.is === 'searching') {
        return <p role="status" data-test="duel-searching">{text.value.searching(now.played)}</p>;
    }
    if (now.is === 'found') {
        return <p role="status" class="lost" data-test="duel-found">✕ {text.value.found(now.result.lost)}</p>;
    }
    const { all, played } = now.exhausted;
    return (
        <p role="status" class={all ? 'kept' : 'hint'} data-test="duel-exhausted" data-all={all}>
            {all ? `✓ ${text.value.all(played)}` : text.value.sample(played)}
        </p>
    );
}

/** Follows the address to another duel, and lets the operations go when the reader leaves. */
function useAddress(): void {
    useEffect(() => {
        const arrive = (): void => {
            const { panel, parameters } = place.value;
            if (panel === 'duel') {
                choose(Object.keys(parameters).length === 0 ? options.value : optionsOf(parameters));
            }
        };
        arrive();
        window.addEventListener('hashchange', arrive);
        return () => {
            window.removeEventListener('hashchange', arrive);
            leave();
        };
    }, []);
}

/** 1, 2, 3: that side's next step, unless something is being typed. */
function useKeys(): void {
    useEffect(() => {
        const press = (event: KeyboardEvent): void => {
            const isTyping = event.target instanceof Element && event.target.matches('input, select, textarea');
            const hasModifier = event.ctrlKey || event.altKey || event.metaKey;
            const step = nextOf(view.value?.choices ?? [], Number(event.key));
            if (!isTyping && !hasModifier && !event.repeat && step !== undefined) {
                void take(step);
            }
        };
        window.addEventListener('keydown', press);
        return () => window.removeEventListener('keydown', press);
    }, []);
}

/** While playing: a step, each time the one before has come to rest and the pace allows. */
function usePace(): void {
    const isDue = isPlaying.value && isRunning.value && !isBusy.value;
    useEffect(() => {
        if (!isDue) {
            return undefined;
        }
        const timer = setTimeout(() => void playOn(), PACES[pace.value]);
        return () => clearTimeout(timer);
    }, [isDue, view.value, pace.value]);
}
