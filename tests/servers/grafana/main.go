// Reads a dashboard as Grafana's own types have it: a field that they do not know, that is missing or of another kind
// is an error. Prints each query that stands in it, as JSON: its panel's title and its expression.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/table"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

type query struct {
	Panel string `json:"panel"`
	Expr  string `json:"expr"`
}

func main() {
	if len(os.Args) != 2 {
		fail("usage: dashboard FILE")
	}
	raw, err := os.ReadFile(os.Args[1])
	if err != nil {
		fail(err)
	}
	runtime := cog.NewRuntime()
	runtime.RegisterDataqueryVariant(prometheus.VariantConfig())
	runtime.RegisterPanelcfgVariant(stat.VariantConfig())
	runtime.RegisterPanelcfgVariant(table.VariantConfig())
	runtime.RegisterPanelcfgVariant(timeseries.VariantConfig())
	strict, read := dashboard.Dashboard{}, dashboard.Dashboard{}
	check(strict.UnmarshalJSONStrict(raw))
	// What was read strictly lacks the panels: their reader gives back an empty list of errors, which is not nil.
	check(json.Unmarshal(raw, &read))
	check(read.Validate())
	queries := []query{}
	for _, row := range read.Panels {
		if row.Panel == nil {
			continue
		}
		title := ""
		if row.Panel.Title != nil {
			title = *row.Panel.Title
		}
		// A panel of a kind that is not registered would be read without a look at its options.
		if _, known := cog.ConfigForPanelcfgVariant(row.Panel.Type); !known {
			fail("panel ", title, ": ", row.Panel.Type, " is no kind that this program knows")
		}
		for _, target := range row.Panel.Targets {
			found, ok := target.(*prometheus.Dataquery)
			if !ok {
				fail("panel ", title, ": a query that is none of Prometheus")
			}
			queries = append(queries, query{Panel: title, Expr: found.Expr})
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(queries); err != nil {
		fail(err)
	}
}

// An empty list of errors is none.
func check(err error) {
	var list cog.BuildErrors
	if err == nil || errors.As(err, &list) && len(list) == 0 {
		return
	}
	fail(err)
}

func fail(why ...any) {
	fmt.Fprintln(os.Stderr, append([]any{"dashboard:"}, why...)...)
	os.Exit(1)
}
