// The same attack with every strategy: a table that grows as they come, and a chart of what safety costs.
import type { EChartsCoreOption } from 'echarts/core';
import { useMemo } from 'preact/hooks';

import { Chart } from '../../chart';
import { color, theme } from '../../theme';
import type { AttackResult } from '../../generated/zbl/v1/lab_service_pb';
import { Trouble } from '../../trouble';
import { VerdictSign } from './result';
import type { Ended } from './runs';
import { account, figure, isWide, milliseconds } from './verdict';
import { text } from './words';

/** Results of one comparison, in the order they came. */
export function Comparison({ all }: { readonly all: readonly Ended[] }) {
    const judged = all.flatMap((ended) => (ended.is === 'judged' ? [ended.result] : []));
    const t = text.value;
    // The colors of a canvas are not the style sheet's: they are drawn anew with the theme.
    const options = useMemo(() => chart(judged), [all, t, theme.value]);
    if (all.length === 0) {
        return null;
    }
    return (
        <>
            <div class="wide">
                <table data-test="comparison">
                    <thead>
                        <tr>
                            <th>{t.strategy}</th>
                            <th>{t.verdict}</th>
                            <th class="number">{t.lost}</th>
                            <th class="number">{t.sold}</th>
                            <th class="number">{t.throughput}</th>
                            <th class="number">p50, ms</th>
                            <th class="number">p99, ms</th>
                            <th class="number">{t.attempts}</th>
                            <th class="number">{t.refused}</th>
                        </tr>
                    </thead>
                    <tbody>
                        {all.map((ended) => (
                            <Row key={ended.strategy} ended={ended} />
                        ))}
                    </tbody>
                </table>
            </div>
            {judged.length > 0 && <Chart options={options} label={t.chartLabel} />}
        </>
    );
}

function Row({ ended }: { readonly ended: Ended }) {
    if (ended.is !== 'judged') {
        return (
            <tr data-test="compared" data-strategy={ended.strategy}>
                <td><code>{ended.strategy}</code></td>
                <td colSpan={8}>
                    {ended.is === 'failed' ? (
                        <Trouble failure={ended.failure} />
                    ) : (
                        text.value.stopped(`${ended.progress?.acknowledged ?? 0}`)
                    )}
                </td>
            </tr>
        );
    }
    const { result } = ended;
    const seen = account(result);
    return (
        <tr data-test="compared" data-strategy={ended.strategy}>
            <td><code>{result.strategy}</code></td>
            <td><VerdictSign name={seen.verdict} /></td>
            <td class={`number ${seen.verdict === 'LOST' ? 'lost' : ''}`}>{result.lost}</td>
            <td class={`number ${seen.isOversold ? 'lost' : ''}`}>{`${result.acknowledged} / ${result.affordable}`}</td>
            <td class="number">{text.value.perSecond(figure(result.throughputPerS))}</td>
            <td class="number">{milliseconds(result.latencyP50Us)}</td>
            <td class="number">{milliseconds(result.latencyP99Us)}</td>
            <td class="number">{seen.attemptsPerChange === null ? '–' : figure(seen.attemptsPerChange)}</td>
            <td class="number">{`${seen.failedTotal}`}</td>
        </tr>
    );
}

/** Two bars for each strategy, each against an axis of its own; the loss is text under its name. */
function chart(judged: readonly AttackResult[]): EChartsCoreOption {
    const t = text.value;
    const throughput = judged.map((result) => Number(result.throughputPerS.toPrecision(3)));
    const p99 = judged.map((result) => Number((Number(result.latencyP99Us) / 1000).toPrecision(3)));
    const names = judged.map((result) => `${result.strategy}${result.lost === '0.00' ? '' : `\n✗ −${result.lost}`}`);
    const axis = (name: string, values: readonly number[], splitLine: boolean) => ({
        name: isWide(values) ? `${name} (${t.chartLog})` : name,
        type: isWide(values) ? 'log' : 'value',
        nameGap: 8,
        axisLabel: { color: color('--muted') },
        splitLine: { show: splitLine, lineStyle: { color: color('--line') } },
    });
    return {
        color: [color('--accent'), color('--warn')],
        grid: { left: 16, right: 16, top: 64, bottom: 8, containLabel: true },
        xAxis: {
            type: 'category',
            data: names,
            axisLabel: { interval: 0, rotate: names.length > 5 ? 25 : 0, color: color('--text') },
        },
        yAxis: [axis(t.perSecond(t.throughput), throughput, true), axis('p99, ms', p99, false)],
        series: [
            { name: t.throughput, type: 'bar', data: throughput },
            { name: 'p99', type: 'bar', yAxisIndex: 1, data: p99 },
        ],
    };
}
