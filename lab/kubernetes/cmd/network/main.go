// The pod network of a node: flanneld gives pods addresses that every node reaches, network-policies filters their traffic.
package main

import (
	"context"
	"flag"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"k8s.io/klog/v2"
)

var programs = map[string]func(context.Context) error{
	"flanneld":         flannel,
	"network-policies": policies,
}

func main() {
	flag.Parse()
	name := filepath.Base(os.Args[0])
	program, known := programs[name]
	if !known {
		klog.Exitf("%s: not a program of the pod network. Call it flanneld or network-policies.", name)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := program(ctx); err != nil {
		klog.Exitf("%s: %v", name, err)
	}
}
