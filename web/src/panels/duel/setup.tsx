// What is played with: operations, strategies, sums; and what to do with it. Owns no run.
import type { Strategy } from '../../generated/zbl/v1/account_service_pb';
import { isPlayable, SIDES_MOST, withSides, type Contestant } from './options';
import { begin, choose, find, isPlaying, isRunning, leave, options, pace, PACES, play, search, view, type Pace } from './run';
import { text } from './words';

/** The form. Before the server's strategies are known, those of the address can be played all the same. */
export function Setup({ strategies }: { readonly strategies: readonly Strategy[] }) {
    const now = options.value;
    const change = (at: number, part: Partial<Contestant>): void => {
        const sides = now.sides.map((side, other) => (other === at ? { ...side, ...part } : side));
        choose({ ...now, sides, plan: [] });
    };
    return (
        <form class="row" onSubmit={(event) => event.preventDefault()}>
            <label class="field">
                <span>{text.value.operations}</span>
                <select
                    value={now.sides.length}
                    data-test="duel-operations"
                    onChange={(event) => choose(withSides(now, Number(event.currentTarget.value)))}
                >
                    {Array.from({ length: SIDES_MOST - 1 }, (_, at) => <option key={at} value={at + 2}>{at + 2}</option>)}
                </select>
            </label>
            {now.sides.map((side, at) => (
                <Contender key={at} at={at} side={side} strategies={strategies} change={(part) => change(at, part)} />
            ))}
            <label class="field">
                <span>{text.value.opening}</span>
                <input
                    class="sum"
                    inputMode="decimal"
                    value={now.opening}
                    data-test="duel-opening"
                    onChange={(event) => choose({ ...now, opening: event.currentTarget.value, plan: [] })}
                />
            </label>
            <label class="check">
                <input
                    type="checkbox"
                    checked={now.crashes}
                    data-test="duel-crashes"
                    onChange={(event) => choose({ ...now, crashes: event.currentTarget.checked, plan: [] })}
                />
                {text.value.crashes}
            </label>
            <Actions />
        </form>
    );
}

interface ContenderProperties {
    readonly at: number;
    readonly side: Contestant;
    readonly strategies: readonly Strategy[];
    readonly change: (part: Partial<Contestant>) => void;
}

function Contender({ at, side, strategies, change }: ContenderProperties) {
    const isKnown = strategies.some((strategy) => strategy.name === side.strategy);
    return (
        <div class="row contender">
            <label class="field">
                <span>{text.value.strategy(at + 1)}</span>
                <select
                    value={side.strategy}
                    data-test="duel-strategy"
                    onChange={(event) => change({ strategy: event.currentTarget.value })}
                >
                    {!isKnown && <option value={side.strategy}>{side.strategy}</option>}
                    {strategies.map(({ name, available, summary, unavailableReason }) => (
                        <option key={name} value={name} disabled={!available} title={available ? summary : unavailableReason}>
                            {name}
                        </option>
                    ))}
                </select>
            </label>
            <label class="field">
                <span>{text.value.amount(at + 1)}</span>
                <input
                    class="sum"
                    inputMode="decimal"
                    value={side.amount}
                    data-test="duel-amount"
                    onChange={(event) => change({ amount: event.currentTarget.value })}
                />
            </label>
        </div>
    );
}

function Actions() {
    const isReady = isPlayable(options.value);
    const isSearching = search.value?.is === 'searching';
    return (
        <div class="row">
            <button
                type="button"
                class={view.value === null ? 'primary' : ''}
                disabled={!isReady || isSearching}
                data-test="duel-start"
                onClick={() => void begin()}
            >
                {view.value === null ? text.value.start : text.value.restart}
            </button>
            <button
                type="button"
                disabled={!isReady || isSearching}
                aria-pressed={isPlaying.value}
                data-test="duel-play"
                onClick={() => (isPlaying.value ? (isPlaying.value = false) : void play())}
            >
                {isPlaying.value ? text.value.pause : text.value.play}
            </button>
            <select
                aria-label={text.value.pace}
                value={pace.value}
                data-test="duel-pace"
                onChange={(event) => (pace.value = event.currentTarget.value as Pace)}
            >
                {(Object.keys(PACES) as Pace[]).map((name) => (
                    <option key={name} value={name}>{text.value.paces[name]}</option>
                ))}
            </select>
            {isSearching ? (
                <button type="button" data-test="duel-stop" onClick={() => (leave(), (search.value = null))}>
                    {text.value.stop}
                </button>
            ) : (
                <button
                    type="button"
                    disabled={!isReady || (isRunning.value && isPlaying.value)}
                    data-test="duel-find"
                    onClick={() => void find()}
                >
                    {text.value.find}
                </button>
            )}
        </div>
    );
}
