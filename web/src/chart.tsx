// A chart: ECharts on a canvas, as large as its place, drawn again when it, its data or the theme changes. Tooltips are
// drawn on the canvas too: the page's policy lets no library write styles into its HTML.
import { BarChart, LineChart, ScatterChart } from 'echarts/charts';
import { AriaComponent, DataZoomComponent, GridComponent, LegendComponent, MarkLineComponent, TooltipComponent } from 'echarts/components';
import { init, use, type ECharts, type EChartsCoreOption } from 'echarts/core';
import { CanvasRenderer } from 'echarts/renderers';
import { useEffect, useRef } from 'preact/hooks';

import { color, theme } from './theme';

use([
    AriaComponent,
    BarChart,
    CanvasRenderer,
    DataZoomComponent,
    GridComponent,
    LegendComponent,
    LineChart,
    MarkLineComponent,
    ScatterChart,
    TooltipComponent,
]);

/** What all charts have in common; read in an effect or a component, so that it follows the theme. */
export function base(): EChartsCoreOption {
    return {
        animation: false,
        aria: { enabled: true, decal: { show: true } },
        textStyle: { color: color('--text'), fontFamily: 'inherit' },
        color: [color('--accent'), color('--lost'), color('--kept'), color('--warn'), color('--muted')],
        grid: { left: 8, right: 16, top: 32, bottom: 8, outerBoundsMode: 'same', outerBoundsContain: 'axisLabel' },
        legend: { top: 0, textStyle: { color: color('--text') } },
        tooltip: { trigger: 'axis', renderMode: 'richText', backgroundColor: color('--raised'), textStyle: { color: color('--text') } },
    };
}

/** A chart of these options on top of the common ones. `label` is what it shows, for those who cannot see it. */
export function Chart({ options, label }: { readonly options: EChartsCoreOption; readonly label: string }) {
    const place = useRef<HTMLDivElement>(null);
    const chart = useRef<ECharts | null>(null);
    useEffect(() => {
        if (place.current === null) {
            return undefined;
        }
        const drawn = init(place.current);
        const watch = new ResizeObserver(() => drawn.resize());
        watch.observe(place.current);
        chart.current = drawn;
        return () => {
            watch.disconnect();
            drawn.dispose();
            chart.current = null;
        };
    }, []);
    const inTheme = theme.value;
    useEffect(() => {
        chart.current?.setOption({ ...base(), ...options }, { notMerge: true, lazyUpdate: true });
    }, [options, inTheme]);
    return <div class="chart" role="img" aria-label={label} ref={place} />;
}
