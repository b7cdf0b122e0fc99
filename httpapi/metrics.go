package httpapi

import (
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/chainstream/chainstream/executor"
	"github.com/chainstream/chainstream/knowledge"
	"github.com/chainstream/chainstream/llm"
)

// CountExecutions registers a count of the executions that have ended here, by
// status, and answers what counts one.
func CountExecutions(r *prometheus.Registry) (finished func(executor.Status), err error) {
	counter := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "chainstream_executions_finished_total", Help: "Executions that this process has brought to their end, by status.",
	}, []string{"status"})
	if err := r.Register(counter); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	for _, s := range executor.Statuses() {
		if s.Final() {
			counter.WithLabelValues(string(s)) // present from the start, as 0
		}
	}
	return func(s executor.Status) { counter.WithLabelValues(string(s)).Inc() }, nil
}

// CountEmbeddings registers counts of the calls of embedding models, and answers what
// counts one: of documents, of queries, and of requests for embeddings. price is nil
// when it is not known.
func CountEmbeddings(r *prometheus.Registry) (count func(provider string, c knowledge.EmbeddingCall, price *llm.Price), err error) {
	labels := []string{"provider", "purpose"}
	calls := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "chainstream_embedding_calls_total", Help: "Calls of embedding models, by what they were for and by what became of them.",
	}, append(labels, "result"))
	tokens := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "chainstream_embedding_call_tokens_total", Help: "Tokens of calls of embedding models.",
	}, labels)
	cost := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "chainstream_embedding_cost_usd_total", Help: "What calls of embedding models cost in US dollars, as far as prices are known.",
	}, labels)
	cut := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "chainstream_embedding_texts_cut_total", Help: "Texts that were longer than the embedding model takes, and were cut.",
	}, labels)
	for _, c := range []prometheus.Collector{calls, tokens, cost, cut} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return func(provider string, c knowledge.EmbeddingCall, price *llm.Price) {
		purpose, result := string(c.Purpose), "answered"
		if c.Purpose == llm.PurposeAny {
			purpose = "request"
		}
		if c.Err != nil {
			result = "failed"
		}
		calls.WithLabelValues(provider, purpose, result).Inc()
		tokens.WithLabelValues(provider, purpose).Add(float64(c.Usage.InputTokens + c.Usage.OutputTokens))
		cut.WithLabelValues(provider, purpose).Add(float64(c.Cut))
		if price != nil {
			cost.WithLabelValues(provider, purpose).Add(price.Cost(c.Usage).InexactFloat64())
		}
	}, nil
}

// WatchCircuits registers how the circuit breakers of models stand.
func WatchCircuits(r *prometheus.Registry, circuits func() []executor.Circuit) error {
	if err := r.Register(circuitCollector(circuits)); err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	return nil
}

// circuitCollector reads the breakers when it is asked.
type circuitCollector func() []executor.Circuit

var circuitState = prometheus.NewDesc("chainstream_model_circuit_state",
	"Whether calls of a model are made: 0 = closed (they are), 1 = half-open (one is tried), 2 = open (none is made).",
	[]string{"provider", "model"}, nil)

// Describe implements prometheus.Collector.
func (c circuitCollector) Describe(ch chan<- *prometheus.Desc) { ch <- circuitState }

// Collect implements prometheus.Collector.
func (c circuitCollector) Collect(ch chan<- prometheus.Metric) {
	for _, m := range c() {
		ch <- prometheus.MustNewConstMetric(circuitState, prometheus.GaugeValue, float64(m.State), m.Provider, m.Model)
	}
}

// NewRegistry makes a registry with the figures of the process.
func NewRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// metrics counts what the server does.
type metrics struct {
	requests   *prometheus.CounterVec
	durations  *prometheus.HistogramVec
	executions *prometheus.CounterVec
	delivered  prometheus.Counter
	ended      *prometheus.CounterVec
	embeddings *prometheus.CounterVec
	embedded   *prometheus.CounterVec
}

func newMetrics(r *prometheus.Registry, s *Server) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "chainstream_http_requests_total", Help: "Requests answered.",
		}, []string{"method", "route", "status"}),
		durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "chainstream_http_request_duration_seconds", Help: "Time to answer a request, streams left out.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10, 60},
		}, []string{"route"}),
		executions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "chainstream_executions_requested_total", Help: "Requests to run a chain, by what became of them.",
		}, []string{"result"}),
		delivered: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "chainstream_stream_events_total", Help: "Events written to streams.",
		}),
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "chainstream_streams_ended_total", Help: "Streams that have ended, by reason.",
		}, []string{"reason"}),
		embeddings: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "chainstream_embedding_requests_total", Help: "Requests for embeddings that were passed on, by provider and by what became of them.",
		}, []string{"provider", "result"}),
		embedded: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "chainstream_embedding_tokens_total", Help: "Tokens of requests for embeddings, by provider.",
		}, []string{"provider"}),
	}
	open := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "chainstream_streams_open", Help: "Streams that are open.",
	}, func() float64 { return float64(s.streams.count()) })
	for _, c := range []prometheus.Collector{m.requests, m.durations, m.executions, m.delivered, m.ended, m.embeddings, m.embedded, open} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) request(method, route string, status int, took time.Duration) {
	m.requests.WithLabelValues(knownMethod(method), route, strconv.Itoa(status)).Inc()
	if route != streamRoute {
		m.durations.WithLabelValues(route).Observe(took.Seconds())
	}
}

// embedding counts a request for embeddings. The provider is one of the server's.
func (m *metrics) embedding(provider string, u llm.Usage, err error) {
	result := "answered"
	if err != nil {
		result = "failed"
	}
	m.embeddings.WithLabelValues(provider, result).Inc()
	m.embedded.WithLabelValues(provider).Add(float64(u.InputTokens + u.OutputTokens))
}

// knownMethod keeps clients from making time series of their own.
func knownMethod(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions:
		return method
	}
	return "other"
}

func (m *metrics) serve(r *prometheus.Registry) echo.HandlerFunc {
	h := promhttp.HandlerFor(r, promhttp.HandlerOpts{DisableCompression: true})
	return echo.WrapHandler(h)
}
