package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/cloudnativelabs/kube-router/v2/pkg/controllers/netpol"
	"github.com/cloudnativelabs/kube-router/v2/pkg/healthcheck"
	"github.com/cloudnativelabs/kube-router/v2/pkg/options"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

var serviceCIDR = flag.String("service-cidr", "10.43.0.0/16", "network-policies: addresses of services")

// policies runs kube-router's controller of NetworkPolicies alone, as K3s does.
func policies(ctx context.Context) error {
	access, err := rest.InClusterConfig()
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(access)
	if err != nil {
		return err
	}
	config := options.NewKubeRouterConfig()
	config.EnableIPv4, config.EnableIPv6 = true, false
	config.ClusterIPCIDRs = []string{*serviceCIDR}
	config.HostnameOverride = os.Getenv("NODE_NAME")
	config.IPTablesSyncPeriod = time.Minute
	factory := informers.NewSharedInformerFactory(client, 0)
	pods := factory.Core().V1().Pods().Informer()
	namespaces := factory.Core().V1().Namespaces().Informer()
	networkPolicies := factory.Networking().V1().NetworkPolicies().Informer()
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	iptables, sets, err := netpol.NewIPTablesHandlers(config)
	if err != nil {
		return err
	}
	controller, err := netpol.NewNetworkPolicyController(client, config, pods, networkPolicies, namespaces, &sync.Mutex{},
		iptables, sets)
	if err != nil {
		return fmt.Errorf("controller: %w", err)
	}
	if _, err := pods.AddEventHandler(controller.PodEventHandler); err != nil {
		return err
	}
	if _, err := namespaces.AddEventHandler(controller.NamespaceEventHandler); err != nil {
		return err
	}
	if _, err := networkPolicies.AddEventHandler(controller.NetworkPolicyEventHandler); err != nil {
		return err
	}
	heartbeats := make(chan *healthcheck.ControllerHeartbeat, 10)
	go func() {
		for range heartbeats { // kube-router's other half reads them; the kubelet restarts this program if it ends
		}
	}()
	var tasks sync.WaitGroup
	tasks.Add(1)
	controller.Run(heartbeats, ctx.Done(), &tasks)
	tasks.Wait()
	return nil
}
