// The picture itself, on a canvas: thousands of rectangles a frame, which no tree of elements can take. Draws what it is
// given; what that is, and that it is not too much, is picture.ts's.
import { Phase } from '../../generated/zbl/v1/timeline_pb';
import { decimal } from '../../money';
import { color } from '../../theme';
import { LANES_MOST, type Band, type Moment, type Placed, type Shape, type View } from './picture';
import type { Bar } from './ring';

/** Pixels. */
export const LEFT = 64;
export const TOP = 22;
const STRIP = 86;
const GAP = 3;

/** The most races that have their arrows at once: of more none could be followed. */
const ARROWS_MOST = 4;

/** What a phase looks like: its color, and the letter that the terminal's lanes have too. */
export const PHASES: Readonly<Record<Phase, { color: `--${string}`; letter: string }>> = {
    [Phase.UNSPECIFIED]: { color: '--muted', letter: '?' },
    [Phase.LOCK_WAIT]: { color: '--lock-wait', letter: 'L' },
    [Phase.READ]: { color: '--read', letter: 'R' },
    [Phase.COMPUTE]: { color: '--compute', letter: 'C' },
    [Phase.WRITE]: { color: '--write', letter: 'W' },
    [Phase.COMMIT]: { color: '--commit', letter: '#' },
    [Phase.QUEUED]: { color: '--queued', letter: 'Q' },
};

/** All that is to be drawn. */
export interface Scene {
    readonly placed: Placed;
    readonly view: View;
    readonly shapes: readonly Shape[];
    readonly bands: readonly Band[];
    readonly moments: readonly Moment[];
    /** The bar and the race that are chosen. */
    readonly chosen: Bar | null;
    readonly race: Band | null;
    readonly isOrder: boolean;
    /** What is written beside the strip: the balance as it is, and as it should be. */
    readonly words: { readonly actual: string; readonly expected: string; readonly lane: string; readonly lost: string };
}

/** The height of a lane: less where there are many. */
export function laneHeight(lanes: number): number {
    return lanes > 24 ? 12 : 26;
}

/** The height of a picture of so many lanes, pixels. */
export function heightOf(lanes: number): number {
    return TOP + Math.min(Math.max(lanes, 2), LANES_MOST) * laneHeight(lanes) + STRIP;
}

/** Draws the scene as wide as this. */
export function draw(canvas: HTMLCanvasElement, scene: Scene, width: number): void {
    const height = heightOf(scene.placed.lanes);
    const ratio = window.devicePixelRatio;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
        canvas.width = Math.round(width * ratio);
        canvas.height = Math.round(height * ratio);
    }
    const context = canvas.getContext('2d');
    if (context !== null) {
        context.setTransform(ratio, 0, 0, ratio, 0, 0);
        context.clearRect(0, 0, width, height);
        new Painter(context, scene, width).paint();
    }
}

class Painter {
    private readonly laneHeight: number;
    private readonly scale: number;
    private readonly colors = new Map<string, string>();

    constructor(
        private readonly context: CanvasRenderingContext2D,
        private readonly scene: Scene,
        private readonly width: number,
    ) {
        this.laneHeight = laneHeight(scene.placed.lanes);
        this.scale = (width - LEFT) / (scene.view.to - scene.view.from);
    }

    paint(): void {
        this.axis();
        this.context.save();
        this.context.beginPath();
        this.context.rect(LEFT, 0, this.width - LEFT, this.stripTop + STRIP);
        this.context.clip();
        this.scene.shapes.forEach((shape) => this.shape(shape));
        this.scene.bands.forEach((band) => this.window(band));
        if (this.scene.race !== null) {
            this.stage(this.scene.race);
            this.arrow(this.scene.race);
        } else if (this.scene.bands.length <= ARROWS_MOST) {
            this.scene.bands.forEach((band) => this.arrow(band));
        }
        this.strip();
        this.context.restore();
    }

    private color(name: `--${string}`): string {
        const known = this.colors.get(name) ?? color(name);
        this.colors.set(name, known);
        return known;
    }

    private x(ns: number): number {
        return LEFT + (this.scene.placed.place(ns) - this.scene.view.from) * this.scale;
    }

    private y(lane: number): number {
        return TOP + (Math.min(lane, LANES_MOST) - 1) * this.laneHeight;
    }

    private get stripTop(): number {
        return TOP + Math.min(Math.max(this.scene.placed.lanes, 2), LANES_MOST) * this.laneHeight;
    }

    /** The names of lanes, and lines where time is told. */
    private axis(): void {
        const { context } = this;
        context.font = '11px system-ui, sans-serif';
        context.fillStyle = this.color('--muted');
        context.textBaseline = 'middle';
        const lanes = Math.min(this.scene.placed.lanes, LANES_MOST);
        for (let lane = 1; lane <= lanes; lane += 1) {
            context.fillText(`${this.scene.words.lane} ${lane}`, 4, this.y(lane) + this.laneHeight / 2);
        }
        context.strokeStyle = this.color('--line');
        context.lineWidth = 1;
        for (const { at, label } of ticks(this.scene, (this.width - LEFT) / 110)) {
            const x = Math.round(LEFT + (at - this.scene.view.from) * this.scale) + 0.5;
            context.beginPath();
            context.moveTo(x, TOP - 4);
            context.lineTo(x, this.stripTop + STRIP);
            context.stroke();
            context.fillText(label, x + 3, TOP / 2);
        }
    }

    private shape({ lane, x, width, bar, count }: Shape): void {
        const { context } = this;
        const [top, height] = [this.y(lane), this.laneHeight - GAP];
        const left = LEFT + x;
        if (bar === null) {
            context.fillStyle = this.color('--muted');
            context.globalAlpha = Math.min(0.35 + count / (width * 8), 0.9);
            context.fillRect(left, top, Math.max(width, 1), height);
            context.globalAlpha = 1;
            return;
        }
        const look = PHASES[bar.phase];
        context.fillStyle = this.color(look.color);
        context.fillRect(left, top, Math.max(width, 1), height);
        if (bar.failure !== null) {
            this.hatch(left, top, width, height);
        }
        if (bar === this.scene.chosen) {
            context.strokeStyle = this.color('--text');
            context.lineWidth = 2;
            context.strokeRect(left, top, Math.max(width, 1), height);
        }
        if (height >= 16 && width >= 12) {
            this.label(bar, look.letter, left, top, width, height);
        }
    }

    /** What a bar read or wrote, where there is room for it; its letter where there is not. */
    private label(bar: Bar, letter: string, left: number, top: number, width: number, height: number): void {
        const { context } = this;
        const value = bar.written ?? bar.seen;
        const said = value === null ? letter : `${letter} ${decimal(value.balance)}@v${value.version}`;
        context.fillStyle = this.color('--bar-text');
        const shown = context.measureText(said).width + 6 <= width ? said : letter;
        // The part that is in the picture.
        context.fillText(shown, Math.max(left, LEFT) + 3, top + height / 2 + 0.5);
    }

    /** Lines across what failed. */
    private hatch(left: number, top: number, width: number, height: number): void {
        const { context } = this;
        context.save();
        context.beginPath();
        context.rect(left, top, width, height);
        context.clip();
        context.strokeStyle = this.color('--ground');
        context.lineWidth = 1.5;
        context.beginPath();
        const until = Math.min(left + width, this.width);
        for (let x = Math.max(left, LEFT) - height; x < until; x += 6) {
            context.moveTo(x, top + height);
            context.lineTo(x + height, top);
        }
        context.stroke();
        context.restore();
    }

    /** The window in which the overwriter believed what was no longer so: a band along its lane. */
    private window({ read, write }: Band): void {
        const { context } = this;
        const [from, to] = [this.x(read.start), this.x(write.end)];
        const height = Math.max(3, (this.laneHeight - GAP) / 5);
        context.fillStyle = this.color('--lost');
        context.fillRect(from, this.y(read.lane) + this.laneHeight - GAP - height, Math.max(to - from, 2), height);
    }

    /** The same of the chosen race, over all the lanes that take part in it. */
    private stage({ read, write, victims }: Band): void {
        const { context } = this;
        const lanes = [read.lane, ...victims.map(({ bar }) => bar.lane)];
        const [top, bottom] = [this.y(Math.min(...lanes)), this.y(Math.max(...lanes)) + this.laneHeight - GAP];
        const [from, to] = [this.x(read.start), this.x(write.end)];
        context.fillStyle = this.color('--lost');
        context.globalAlpha = 0.14;
        context.fillRect(from, top, Math.max(to - from, 2), bottom - top);
        context.globalAlpha = 1;
        context.strokeStyle = this.color('--lost');
        context.lineWidth = 1;
        context.strokeRect(from, top, Math.max(to - from, 2), bottom - top);
    }

    /** From the stale read to the overwrite, and what it destroyed, struck through at the writes that are lost. */
    private arrow({ read, write, victims }: Band): void {
        const { context } = this;
        const [from, to] = [this.x((read.start + read.end) / 2), this.x((write.start + write.end) / 2)];
        const y = this.y(read.lane) - 1;
        context.strokeStyle = this.color('--lost');
        context.fillStyle = this.color('--lost');
        context.lineWidth = 1.5;
        context.setLineDash([5, 3]);
        context.beginPath();
        context.moveTo(from, y + 4);
        context.bezierCurveTo(from, y - 12, to, y - 12, to, y + 2);
        context.stroke();
        context.setLineDash([]);
        context.beginPath();
        context.moveTo(to, y + 5);
        context.lineTo(to - 4, y - 3);
        context.lineTo(to + 4, y - 3);
        context.fill();
        for (const { bar, delta } of victims) {
            this.struck(bar, delta);
        }
    }

    private struck(bar: Bar, delta: bigint): void {
        const { context } = this;
        const [left, right] = [this.x(bar.start), this.x(bar.end)];
        const middle = this.y(bar.lane) + (this.laneHeight - GAP) / 2;
        context.strokeStyle = this.color('--lost');
        context.lineWidth = 2.5;
        context.beginPath();
        context.moveTo(left - 3, middle);
        context.lineTo(Math.max(right, left + 6) + 3, middle);
        context.stroke();
        const said = `${decimal(delta)} ${this.scene.words.lost}`;
        context.font = 'bold 11px system-ui, sans-serif';
        const width = context.measureText(said).width;
        context.fillStyle = this.color('--lost-ground');
        context.fillRect(right + 4, middle - 8, width + 6, 16);
        context.fillStyle = this.color('--lost');
        context.fillText(said, right + 7, middle);
        context.font = '11px system-ui, sans-serif';
    }

    /** The balance as it was written, over what it should have been; what is between them is gone. */
    private strip(): void {
        const { context, scene } = this;
        const inView = visible(scene.moments, scene.placed, scene.view);
        if (inView.length === 0) {
            return;
        }
        const all = inView.flatMap(({ actual, expected }) => [Number(actual), Number(expected)]);
        const least = all.reduce((one, other) => Math.min(one, other));
        const most = all.reduce((one, other) => Math.max(one, other));
        const [top, height] = [this.stripTop + 14, STRIP - 26];
        const y = (minor: bigint): number => top + height - ((Number(minor) - least) / Math.max(most - least, 1)) * height;
        const steps = (of: (moment: Moment) => bigint): Path2D => {
            const path = new Path2D();
            inView.forEach((moment, at) => {
                const x = this.x(moment.at);
                const before = inView[at - 1];
                if (before === undefined) {
                    path.moveTo(x, y(of(moment)));
                } else {
                    path.lineTo(x, y(of(before)));
                    path.lineTo(x, y(of(moment)));
                }
            });
            return path;
        };
        context.lineWidth = 1.5;
        context.strokeStyle = this.color('--accent');
        context.stroke(steps((moment) => moment.actual));
        context.setLineDash([4, 3]);
        context.strokeStyle = this.color('--kept');
        context.stroke(steps((moment) => moment.expected));
        context.setLineDash([]);
        const last = inView.at(-1);
        if (last !== undefined) {
            const gap = last.actual - last.expected;
            context.fillStyle = gap === 0n ? this.color('--kept') : this.color('--lost');
            const { actual, expected, lost } = scene.words;
            const balances = `${actual} ${decimal(last.actual)}  ${expected} ${decimal(last.expected)}`;
            context.fillText(gap === 0n ? balances : `${balances}  ${lost} ${decimal(gap)}`, LEFT + 6, this.stripTop + 6);
        }
    }
}

/** The moments that are seen, with one on either side so that lines come from somewhere; at most one for two pixels or so. */
function visible(moments: readonly Moment[], placed: Placed, view: View): readonly Moment[] {
    const MOMENTS_MOST = 800;
    const from = Math.max(0, moments.findIndex(({ at }) => placed.place(at) >= view.from) - 1);
    const after = moments.findLastIndex(({ at }) => placed.place(at) <= view.to) + 2;
    const seen = moments.slice(from, Math.max(after, from));
    const every = Math.ceil(seen.length / MOMENTS_MOST);
    return seen.filter((_, at) => at % every === 0 || at === seen.length - 1);
}

/** Places on the axis to write something at, about so many. */
function ticks({ view, placed, isOrder }: Scene, about: number): { at: number; label: string }[] {
    const rough = (view.to - view.from) / Math.max(about, 1);
    const power = 10 ** Math.floor(Math.log10(Math.max(rough, 1e-9)));
    const step = [1, 2, 5, 10].map((times) => times * power).find((step) => step >= rough) ?? rough;
    const origin = isOrder ? 0 : placed.from;
    const first = Math.ceil((view.from - origin) / step);
    const count = Math.max(0, Math.floor((view.to - origin) / step) - first + 1);
    return Array.from({ length: count }, (_, at) => {
        const value = (first + at) * step;
        return { at: origin + value, label: isOrder ? `${Math.round(value)}` : `${trimmed(value / 1e6)} ms` };
    });
}

function trimmed(value: number): string {
    return value.toFixed(3).replace(/\.?0+$/, '');
}
