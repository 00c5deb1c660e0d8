// Light or dark: the system's choice unless the reader made one.
import { computed, effect, signal } from '@preact/signals';

const KEPT_AS = 'zbl.theme';
const system = window.matchMedia('(prefers-color-scheme: dark)');

type Theme = 'light' | 'dark';

const chosen = signal<Theme | null>(kept());
const bySystem = signal<Theme>(system.matches ? 'dark' : 'light');

function kept(): Theme | null {
    const theme = localStorage.getItem(KEPT_AS);
    return theme === 'light' || theme === 'dark' ? theme : null;
}

system.addEventListener('change', () => {
    bySystem.value = system.matches ? 'dark' : 'light';
});

/** The theme in use. Whoever draws on a canvas reads it, and draws again when it changes. */
export const theme = computed<Theme>(() => chosen.value ?? bySystem.value);

effect(() => {
    document.documentElement.dataset.theme = theme.value;
});

/** Takes the other theme, for the next time too. */
export function switchTheme(): void {
    const next: Theme = theme.value === 'dark' ? 'light' : 'dark';
    localStorage.setItem(KEPT_AS, next);
    chosen.value = next;
}

/** The colors of the theme in use: a live view, asked for anew with each theme so that its readers follow. */
const colors = computed(() => ({ of: theme.value, style: getComputedStyle(document.documentElement) }));

/** A color of the style sheet, such as `--lost`, as it is in the theme in use. */
export function color(name: `--${string}`): string {
    return colors.value.style.getPropertyValue(name).trim();
}
