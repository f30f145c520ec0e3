// What a dashboard of ours must be: Grafana's published type, with the options of each kind of panel that we use and the
// queries of the Prometheus data source in place of "any record". tsconfig.*.json say of which release the types are.

import type * as grafana from '@grafana/schema';
import type * as barGauge from 'panel/bargauge';
import type * as heatmap from 'panel/heatmap';
import type * as stat from 'panel/stat';
import type * as table from 'panel/table';
import type * as timeSeries from 'panel/timeseries';
import type { PrometheusDataQuery } from 'query/prometheus';

// A type as it is in JSON: of an enum its words, and of minus infinity (where the lowest threshold begins) null.
type InJson<T> = T extends string
  ? `${T}`
  : T extends (infer Element)[]
    ? InJson<Element>[]
    : T extends { value: number | null; color: string }
      ? { value: number | null; color: string }
      : T extends object
        ? { [Key in keyof T]: InJson<T[Key]> }
        : T;

// Grafana fills in what a dashboard leaves out.
type Options<T> = { [Key in keyof T]?: InJson<T[Key]> };

type Defaults<Custom> = Omit<InJson<grafana.FieldConfig>, 'custom'> & { custom?: Options<Custom> };

interface PanelOf<Type extends string, PanelOptions, Custom>
  extends Omit<InJson<grafana.Panel>, 'type' | 'options' | 'fieldConfig' | 'targets'> {
  type: Type;
  title: string;
  description: string;
  datasource: { type: 'prometheus'; uid: string };
  options?: Options<PanelOptions>;
  fieldConfig?: { defaults: Defaults<Custom>; overrides: InJson<grafana.FieldConfigSource>['overrides'] };
  targets: InJson<PrometheusDataQuery>[];
}

type Panel =
  | PanelOf<'timeseries', timeSeries.Options, grafana.GraphFieldConfig>
  | PanelOf<'stat', stat.Options, object>
  | PanelOf<'bargauge', barGauge.Options, object>
  | PanelOf<'table', table.Options, grafana.TableFieldOptions>
  | PanelOf<'heatmap', heatmap.Options, heatmap.FieldConfig>;

// The published type leaves out what a data source adds to an annotation: of Prometheus' it is this.
type Annotation = Omit<InJson<grafana.AnnotationQuery>, 'target'> & {
  expr: string;
  step: string;
  titleFormat: string;
  textFormat: string;
};

export type Dashboard = Omit<InJson<grafana.Dashboard>, 'panels' | 'annotations'> & {
  uid: string;
  panels: (Panel | InJson<grafana.RowPanel>)[];
  annotations: { list: Annotation[] };
};
