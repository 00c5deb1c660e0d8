// The charts: everything that was kept, drawn over time. A line's pattern tells it from the others where colors do not.
import type { EChartsCoreOption } from 'echarts/core';

import { Chart } from '../../chart';
import { color } from '../../theme';
import { words } from '../../words';
import { clock } from './format';
import type { Moment } from './ring';

const text = words({
    en: {
        changes: 'Changes per second',
        succeeded: 'acknowledged',
        refused: 'refused',
        failed: 'failed',
        latency: 'Latency of changes, ms',
        p50: 'p50',
        p99: 'p99',
        load: 'Load',
        inFlight: 'changes in flight',
        poolUsed: 'connections in use',
        poolWaiting: 'waiting for one',
        balance: 'Balance of the account',
        actual: 'actual',
        expected: 'expected by its journal',
    },
    zh: {
        changes: '每秒变更数',
        succeeded: '已确认',
        refused: '被拒绝',
        failed: '失败',
        latency: '变更延迟（毫秒）',
        p50: 'p50',
        p99: 'p99',
        load: '负载',
        inFlight: '进行中的变更',
        poolUsed: '使用中的连接',
        poolWaiting: '等待连接',
        balance: '账户余额',
        actual: '实际',
        expected: '按流水应有',
    },
});

/** A line of a chart. */
interface Line {
    readonly name: string;
    readonly color: string;
    readonly dash: 'solid' | 'dashed' | 'dotted';
    readonly value: (moment: Moment) => number | null;
}

/** All of them. `at` is the moment that is looked at, milliseconds since 1970; null for live. */
export function Charts({ moments, at }: { readonly moments: readonly Moment[]; readonly at: number | null }) {
    const said = text.value;
    const lost = color('--lost');
    // A balance far from zero is not drawn from there: what it is off by would not be seen.
    const draw = (title: string, name: string, lines: readonly Line[], scale = false) => (
        <figure data-test={`monitor-chart-${name}`}>
            <figcaption>{title}</figcaption>
            <Chart options={options(moments, at, lines, scale)} label={title} />
        </figure>
    );
    return (
        <div class="monitor-charts">
            {draw(said.changes, 'changes', [
                line(said.succeeded, color('--kept'), 'solid', ({ rates }) => rates?.succeeded ?? null),
                line(said.refused, color('--warn'), 'dashed', ({ rates }) => rates?.refused ?? null),
                line(said.failed, lost, 'dotted', ({ rates }) => rates?.failed ?? null),
            ])}
            {draw(said.latency, 'latency', [
                line(said.p50, color('--accent'), 'solid', ({ rates }) => rates?.p50 ?? null),
                line(said.p99, color('--compute'), 'dashed', ({ rates }) => rates?.p99 ?? null),
            ])}
            {draw(said.balance, 'balance', [
                line(said.expected, color('--kept'), 'dashed', ({ account }) => pixels(account?.expected)),
                line(said.actual, lost, 'solid', ({ account }) => pixels(account?.actual)),
            ], true)}
            {draw(said.load, 'load', [
                line(said.inFlight, color('--accent'), 'solid', ({ status }) => Number(status.inFlight)),
                line(said.poolUsed, color('--write'), 'dashed', ({ status }) => status.pool?.inUse ?? null),
                line(said.poolWaiting, lost, 'dotted', ({ status }) => status.pool?.waiting ?? null),
            ])}
        </div>
    );
}

function line(name: string, ofColor: string, dash: Line['dash'], value: Line['value']): Line {
    return { name, color: ofColor, dash, value };
}

/** Money as a height on the screen, the one thing that it may be a float for. */
function pixels(units: bigint | undefined): number | null {
    return units === undefined ? null : Number(units) / 100;
}

function options(
    moments: readonly Moment[],
    at: number | null,
    lines: readonly Line[],
    scale: boolean,
): EChartsCoreOption {
    const lineStyle = { color: color('--line') };
    const grid = { axisLine: { lineStyle }, splitLine: { lineStyle } };
    const cursor = {
        silent: true,
        symbol: 'none',
        label: { show: false },
        lineStyle: { color: color('--text'), type: 'solid' },
        data: at === null ? [] : [{ xAxis: at }],
    };
    return {
        xAxis: {
            type: 'time',
            ...grid,
            splitLine: { show: false },
            axisLabel: { color: color('--muted'), hideOverlap: true, formatter: clock },
        },
        yAxis: { type: 'value', ...grid, axisLabel: { color: color('--muted') }, scale },
        series: lines.map((line, index) => ({
            type: 'line',
            name: line.name,
            symbol: 'none',
            itemStyle: { color: line.color },
            lineStyle: { color: line.color, type: line.dash, width: 2 },
            data: moments.map((moment) => [moment.at, line.value(moment)]),
            ...(index === 0 ? { markLine: cursor } : {}),
        })),
    };
}
