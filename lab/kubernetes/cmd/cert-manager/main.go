// cert-manager's programs in one: the name it is called by selects the program. Upstream's mains are modules of their own,
// which no module proxy serves; these run the same packages.
package main

import (
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/cert-manager/cert-manager/pkg/util"
	"github.com/spf13/pflag"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/textlogger"
	ctrl "sigs.k8s.io/controller-runtime"
)

// Flags that the chart sets; others that it can set are accepted without effect.
type options struct {
	resourceNamespace       string
	leaderElectionNamespace string
	securePort              int
	healthPort              int
	caSecretNamespace       string
	caSecretName            string
	dnsNames                []string
}

var programs = map[string]func(context.Context, *rest.Config, options) error{
	"controller": controllers,
	"cainjector": injector,
	"webhook":    webhook,
}

func main() {
	name := filepath.Base(os.Args[0])
	program, known := programs[name]
	if !known {
		klog.Exitf("%s: not a program of cert-manager. Call it controller, cainjector or webhook.", name)
	}
	var given options
	flags := pflag.NewFlagSet(name, pflag.ExitOnError)
	flags.ParseErrorsAllowlist.UnknownFlags = true
	flags.StringVar(&given.resourceNamespace, "cluster-resource-namespace", "kube-system", "")
	flags.StringVar(&given.leaderElectionNamespace, "leader-election-namespace", "kube-system", "")
	flags.IntVar(&given.securePort, "secure-port", 10250, "")
	flags.IntVar(&given.healthPort, "healthz-port", 6080, "")
	flags.StringVar(&given.caSecretNamespace, "dynamic-serving-ca-secret-namespace", "", "")
	flags.StringVar(&given.caSecretName, "dynamic-serving-ca-secret-name", "", "")
	flags.StringSliceVar(&given.dnsNames, "dynamic-serving-dns-names", nil, "")
	_ = flags.Parse(os.Args[1:]) // ExitOnError
	ctrl.SetLogger(textlogger.NewLogger(textlogger.NewConfig()))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	config, err := rest.InClusterConfig()
	if err == nil {
		err = program(ctx, util.RestConfigWithUserAgent(config, name), given) // its user agent names the manager of fields
	}
	if err != nil {
		klog.Exitf("%s: %v", name, err)
	}
}
