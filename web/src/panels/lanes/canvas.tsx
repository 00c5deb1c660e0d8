// The picture as the reader handles it: drawn once a frame, dragged, wheeled, pointed at.
import { useSignal } from '@preact/signals';
import { useEffect, useMemo, useRef } from 'preact/hooks';

import { theme } from '../../theme';
import { About } from './card';
import { draw, heightOf, laneHeight, LEFT, TOP } from './draw';
import { bands, LANES_MOST, shapes, type Shape } from './picture';
import { chosen, isOrder, look, move, race, seen, zoom, type Shot } from './stage';
import { text } from './texts';

/** How wide a card is, pixels: as in the style sheet. */
const CARD_WIDTH = 340;

/** What is pointed at. */
interface Pointed {
    readonly shape: Shape;
    readonly x: number;
    readonly y: number;
}

export function Canvas({ shot }: { readonly shot: Shot }) {
    const canvas = useRef<HTMLCanvasElement>(null);
    const width = useSignal(900);
    const pointed = useSignal<Pointed | null>(null);
    const view = seen.value;
    const inner = Math.max(width.value - LEFT, 100);
    const drawn = useMemo(() => shapes(shot.placed, view, inner), [shot, view, inner]);
    const windows = useMemo(() => bands(shot.bands, shot.placed, view), [shot, view]);
    const racesLeftOut = windows.more + shot.counted - shot.races.length;
    const raceShown = shot.bands.find((band) => band.race.k === race.value?.k) ?? null;
    const { actual, expected, lane, lost } = text.value;

    useEffect(() => {
        const watch = new ResizeObserver(([entry]) => (width.value = entry?.contentRect.width ?? width.value));
        if (canvas.current?.parentElement) {
            watch.observe(canvas.current.parentElement);
        }
        return () => watch.disconnect();
    }, []);
    useEffect(() => {
        const words = { actual, expected, lane, lost };
        const frame = requestAnimationFrame(() => {
            if (canvas.current !== null) {
                const { placed, moments } = shot;
                const scene = { placed, view, moments, words, isOrder: isOrder.value };
                const marks = { shapes: drawn.shapes, bands: windows.bands, chosen: chosen.value, race: raceShown };
                draw(canvas.current, { ...scene, ...marks }, width.value);
            }
        });
        return () => cancelAnimationFrame(frame);
    }, [shot, view, drawn, windows, raceShown, chosen.value, width.value, theme.value, actual]);

    const find = (event: MouseEvent): Pointed | null => {
        const [x, y] = [event.offsetX - LEFT, event.offsetY];
        const row = Math.floor((y - TOP) / laneHeight(shot.placed.lanes)) + 1;
        const shape = drawn.shapes.findLast((one) => one.lane === row && x >= one.x - 1 && x <= one.x + one.width + 1);
        return shape === undefined ? null : { shape, x: event.offsetX, y };
    };
    const at = pointed.value;
    const left = at === null ? 0 : Math.max(0, Math.min(at.x + 14, width.value - CARD_WIDTH));
    return (
        <>
            <div class="picture">
                <canvas
                    ref={canvas}
                    data-test="lanes-canvas"
                    role="img"
                    aria-label={text.value.canvas}
                    style={{ width: '100%', height: heightOf(shot.placed.lanes) }}
                    onMouseMove={(event) => {
                        pointed.value = event.buttons === 0 ? find(event) : null;
                        if (event.buttons === 1 && event.movementX !== 0) {
                            move(-event.movementX / inner);
                        }
                    }}
                    onMouseLeave={() => (pointed.value = null)}
                    onClick={(event) => (chosen.value = find(event)?.shape.bar ?? null)}
                    onWheel={(event) => {
                        event.preventDefault();
                        const around = view.from + ((event.offsetX - LEFT) / inner) * (view.to - view.from);
                        zoom(event.deltaY < 0 ? 0.8 : 1.25, around);
                    }}
                    onDblClick={(event) => {
                        const bar = find(event)?.shape.bar;
                        if (bar) {
                            look({ from: shot.placed.place(bar.start), to: shot.placed.place(bar.end) });
                        }
                    }}
                />
                {at !== null && (
                    <div class="card" style={{ left, top: at.y + 16 }}>
                        {at.shape.bar === null ? text.value.crowd(at.shape.count) : <About bar={at.shape.bar} />}
                    </div>
                )}
            </div>
            {at === null && chosen.value?.user === shot.user && (
                <div class="card chosen-span">
                    <About bar={chosen.value} />
                </div>
            )}
            <p class="hint" data-test="lanes-left-out">
                {[
                    drawn.merged > 0 ? text.value.merged(drawn.merged) : '',
                    shot.placed.lanes > LANES_MOST ? text.value.lanesLeftOut(shot.placed.lanes - LANES_MOST) : '',
                    racesLeftOut > 0 ? text.value.bandsLeftOut(racesLeftOut) : '',
                ]
                    .filter((said) => said !== '')
                    .join(' · ')}
            </p>
        </>
    );
}
