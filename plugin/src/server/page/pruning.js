// What became of the model: sizes, experts, layers, losses.

import { json } from '/assets/api.js';
import { byId, choices, element, problem } from '/assets/dom.js';
import { heatmap } from '/assets/heatmap.js';
import { amount, bytes, change, percent, range } from '/assets/numbers.js';
import { models } from '/assets/settings.js';
import { layers, losses } from '/assets/tables.js';

// Ends what the figures shown last listen to.
let shown = new AbortController();

// Asks for the pruning of the chosen model and shows it.
export async function show() {
  const all = models();
  choices(byId('which'), all.map((id) => ({ value: id, label: id })));
  byId('which-field').hidden = all.length < 2;
  const query = all.length > 1 ? `?model=${encodeURIComponent(byId('which').value)}` : '';
  const content = byId('pruning-content');
  content.setAttribute('aria-busy', 'true');
  try {
    const found = await json(`/v1/pruning${query}`);
    shown.abort();
    shown = new AbortController();
    content.replaceChildren(...sections(found, shown.signal));
    problem('');
  } catch (error) {
    content.replaceChildren();
    problem(error.message);
  }
  content.setAttribute('aria-busy', 'false');
}

export function start() {
  byId('which').addEventListener('change', show);
}

function sections(found, signal) {
  const { plan, evaluation } = found;
  if (!plan) {
    return [element('p', { className: 'lead' }, `${found.model} is served as it is: nothing was removed. `,
      element('code', { textContent: 'serve --prune-experts 0.5' }), ' removes half of its experts.')];
  }
  const parts = [summary(found), facts(plan, evaluation)];
  if (evaluation?.variants?.length && Object.keys(evaluation.variants[0].domains).length) {
    parts.push(part('What it costs', 'The original and the pruned model on text that was not calibrated with.', losses(evaluation)));
  }
  if (plan.layers.some((layer) => layer.scores.length)) {
    parts.push(part('Experts', `How much each expert matters by ${plan.method.criterion}, and which ones stay.`, heatmap(plan, signal)));
  }
  parts.push(part('Layers', 'Block influence: how far a layer turns the residual stream, 1 − mean cosine of its input and output.', layers(plan)));
  parts.push(part('How it was decided', null, method(found)));
  return parts;
}

function part(title, note, ...content) {
  return element('section', { className: 'part' }, element('h3', { textContent: title }),
    element('p', { className: 'note', textContent: note ?? '' }), ...content);
}

function summary({ model, plan, caveat }) {
  const { before, after } = plan;
  const gone = [];
  if (range(before.experts_per_layer) !== range(after.experts_per_layer)) {
    gone.push(`keeps ${range(after.experts_per_layer)} of ${range(before.experts_per_layer)} experts in a layer`);
  }
  if (before.layers !== after.layers) gone.push(`${after.layers} of ${before.layers} layers`);
  const what = gone.length ? gone.join(' and ') : 'keeps all experts and layers';
  const text = element('p', { className: 'lead', textContent: `${model}, made of ${plan.model.name}, ${what}.` });
  return element('div', {}, text, caveat ? element('p', { className: 'note', textContent: caveat }) : null);
}

function facts({ before, after }, evaluation) {
  const list = [
    ['parameters', change(after.parameters / before.parameters - 1), `${amount(before.parameters)} → ${amount(after.parameters)}`],
    ['weights', change(after.bytes / before.bytes - 1), `${bytes(before.bytes)} → ${bytes(after.bytes)}`],
    ['active per token', change(after.active_parameters / before.active_parameters - 1),
      `${amount(before.active_parameters)} → ${amount(after.active_parameters)}`],
  ];
  const pruned = evaluation?.variants?.[0]?.all;
  const loss = pruned?.perplexity_change;
  if (loss) {
    const [from, to] = [evaluation.reference.all.perplexity, pruned.perplexity].map((found) => found?.value.toFixed(2));
    list.push(['perplexity', change(loss.value), `${from} → ${to}`]);
  }
  if (pruned?.top1_agreement) list.push(['same top token', percent(pruned.top1_agreement.value), 'as the original']);
  return element('dl', { className: 'facts' }, ...list.map(([name, value, detail]) => element('div', {},
    element('dt', { textContent: name }),
    element('dd', {}, element('b', { textContent: value }), element('span', { textContent: detail })))));
}

function method({ plan, evaluation }) {
  const { criterion, allocator, layer_criterion, constraints, seed } = plan.method;
  const asked = plan.method.asked ?? {};
  const domains = plan.stats.domains.map(({ name, weight, coverage }) => {
    const kept = coverage === null || coverage === undefined ? '' : `, keeps ${percent(coverage)} of its expert output`;
    return `${name} (weight ${weight}${kept})`;
  });
  const rows = [
    ['Criterion', criterion],
    ['Allocation', allocator],
    asked.layers ? ['Layer criterion', layer_criterion] : null,
    plan.weights ? ['Weights', plan.weights] : null,
    ['Super experts', constraints?.super_experts?.join(', ') || (constraints?.super_experts ? 'none found' : 'not protected')],
    constraints?.protected?.length ? ['Protected', constraints.protected.join(', ')] : null,
    ['Calibrated with', `${amount(plan.stats.tokens)} tokens: ${domains.join('; ')}`],
    evaluation ? ['Measured on', `${amount(evaluation.provenance.domains.reduce((sum, domain) => sum + domain.tokens, 0))} held-out tokens`] : null,
    ['Seed', String(seed)],
    ['Made by', plan.created_by],
  ];
  return element('dl', { className: 'pairs' }, ...rows.filter(Boolean).flatMap(([name, value]) => [
    element('dt', { textContent: name }), element('dd', { textContent: value })]));
}
