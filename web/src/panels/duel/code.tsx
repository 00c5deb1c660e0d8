// The source of the strategy of one side, from the server that runs it, with the lines of the phase that it is at.
import { signal } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';

import { Phase } from '../../generated/zbl/v1/timeline_pb';
import { token } from '../../service';
import { options } from './run';
import { fileOf, handovers, partFrom, phaseLines, type Part } from './source';
import { phaseClass } from './stage';
import { piecesOf } from './tokens';
import { sideOf, type View } from './view';
import { text } from './words';

/** The files that were asked for, or why they cannot be had; as many as the server has strategies at the most. */
const files = signal<ReadonlyMap<string, Part | Error>>(new Map());

/** Which side the reader chose, and after how many steps: the next one shows its own side again. */
const chosen = signal({ side: 1, after: -1 });

async function fetchFile(strategy: string): Promise<Part> {
    const headers: HeadersInit = token.value === '' ? {} : { authorization: `Bearer ${token.value}` };
    const answer = await fetch(`/source/${encodeURIComponent(strategy)}.rs`, { headers });
    if (!answer.ok) {
        throw new Error(`${answer.status} ${answer.statusText}`);
    }
    return fileOf(strategy, await answer.text());
}

const asked = new Set<string>();

function want(strategy: string): void {
    if (asked.has(strategy)) {
        return;
    }
    asked.add(strategy);
    const keep = (file: Part | Error): unknown => (files.value = new Map([...files.value, [strategy, file]]));
    fetchFile(strategy).then(keep, (error: unknown) => {
        // Asked for again when it is wanted the next time.
        asked.delete(strategy);
        keep(error instanceof Error ? error : new Error(String(error)));
    });
}

/** A strategy's file, and the parts of those that it hands over to. */
function partsOf(strategy: string, strategies: readonly string[]): readonly Part[] | Error | undefined {
    const file = files.value.get(strategy);
    if (file === undefined || file instanceof Error) {
        return file;
    }
    const others = handovers(file, strategies).map(({ strategy: other, name }) => {
        const theirs = files.value.get(other);
        return theirs === undefined || theirs instanceof Error ? null : partFrom(theirs, name);
    });
    return [file, ...others.filter((part) => part !== null)];
}

/** The source beside the stage. */
export function Code({ now, strategies }: { readonly now: View | null; readonly strategies: readonly string[] }) {
    const last = now?.deeds.at(-1);
    const steps = now?.deeds.length ?? 0;
    const moved = last === undefined ? 1 : sideOf(last.step);
    const operation = chosen.value.after === steps ? chosen.value.side : moved;
    const side = now?.sides[operation - 1];
    const strategy = options.value.sides[operation - 1]?.strategy ?? '';
    const phase = side?.phase ?? Phase.UNSPECIFIED;
    const parts = partsOf(strategy, strategies);
    useEffect(() => {
        want(strategy);
        const file = files.value.get(strategy);
        if (file !== undefined && !(file instanceof Error)) {
            handovers(file, strategies).forEach((other) => want(other.strategy));
        }
    }, [strategy, strategies, files.value.get(strategy) instanceof Error ? null : files.value.get(strategy)]);
    return (
        <section class="code">
            <div class="row">
                <h2>{text.value.code}</h2>
                {options.value.sides.map((_, at) => (
                    <button
                        key={at}
                        type="button"
                        aria-pressed={at + 1 === operation}
                        data-test="duel-source-side"
                        onClick={() => (chosen.value = { side: at + 1, after: steps })}
                    >
                        {text.value.codeOf(at + 1)}
                    </button>
                ))}
                {phase !== Phase.UNSPECIFIED && (
                    <span class={`mark ${phaseClass(phase)}`} data-test="duel-source-phase">{text.value.phases[phase]}</span>
                )}
            </div>
            {parts instanceof Error && <p class="failure">{text.value.noSource(parts.message)}</p>}
            {Array.isArray(parts) && <Listing parts={parts as readonly Part[]} phase={phase} />}
        </section>
    );
}

function Listing({ parts, phase }: { readonly parts: readonly Part[]; readonly phase: Phase }) {
    const box = useRef<HTMLDivElement>(null);
    const current = phaseLines(parts, phase);
    const has = current.some((lines) => lines.size > 0);
    const which = `${parts.map((part) => part.strategy).join(' ')} ${phase}`;
    useEffect(() => {
        const line = box.current?.querySelector<HTMLElement>('[aria-current]');
        if (box.current && line) {
            // Within the listing only: the page stays where it is.
            box.current.scrollTop = line.offsetTop - box.current.clientHeight / 4;
        }
    }, [which]);
    return (
        <>
            {!has && phase !== Phase.UNSPECIFIED && <p class="hint">{text.value.noLines}</p>}
            <div class={`listing ${phaseClass(phase)}`} ref={box} tabIndex={0} role="region" aria-label={text.value.code}>
                {parts.map((part, at) => (
                    <div key={`${part.strategy} ${part.first}`}>
                        <p class="file">{at > 0 && <span>{text.value.elsewhere} </span>}<code>{part.strategy}.rs</code></p>
                        <pre>
                            {part.lines.map((line, offset) => (
                                <Line
                                    key={offset}
                                    number={part.first + offset}
                                    line={line}
                                    isCurrent={current[at]?.has(part.first + offset) === true}
                                />
                            ))}
                        </pre>
                    </div>
                ))}
            </div>
        </>
    );
}

function Line({ number, line, isCurrent }: { readonly number: number; readonly line: string; readonly isCurrent: boolean }) {
    return (
        <span class="line" data-test="duel-source-line" aria-current={isCurrent ? 'true' : undefined}>
            <span class="at">{number}</span>
            <span class="text">
                {piecesOf(line).map((piece, at) => <span key={at} class={piece.kind}>{piece.text}</span>)}
            </span>
        </span>
    );
}
