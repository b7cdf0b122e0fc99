package main

import (
	"io"
	"log/slog"
	"time"

	"github.com/lmittmann/tint"
)

// logFlags say what the log of a server looks like.
type logFlags struct {
	LogFormat string `help:"Form of the log: text, json, or auto for text on a terminal and JSON elsewhere." enum:"auto,text,json" default:"auto" environ:"CHAINSTREAM_LOG_FORMAT"`
	LogLevel  string `help:"Least level that is logged: debug, info, warn or error." enum:"debug,info,warn,error" default:"info" environ:"CHAINSTREAM_LOG_LEVEL"`
}

// logger answers a logger that writes to w.
func (f logFlags) logger(w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.LogLevel)); err != nil {
		return nil, usage("--log-level: %s", err)
	}
	terminal := isTerminal(w)
	if f.LogFormat == "json" || f.LogFormat == "auto" && !terminal {
		return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level})), nil
	}
	return slog.New(tint.NewTextHandler(w, &tint.Options{Level: level, TimeFormat: time.TimeOnly, NoColor: !terminal})), nil
}
