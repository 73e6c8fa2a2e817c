package main

import (
	"context"

	acme "github.com/cert-manager/cert-manager/pkg/apis/acme/v1"
	certmanager "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmscheme "github.com/cert-manager/cert-manager/pkg/client/clientset/versioned/scheme"
	servertls "github.com/cert-manager/cert-manager/pkg/server/tls"
	"github.com/cert-manager/cert-manager/pkg/server/tls/authority"
	"github.com/cert-manager/cert-manager/pkg/webhook/server"
	admission "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
)

// identity does for CertificateRequests what a simulation can without cert-manager's internal packages: it records who
// creates one, as upstream's webhook. Upstream's further validation is missing: the schemas of the definitions remain.
type identity struct{}

func (identity) Handles(operation admission.Operation) bool {
	return operation == admission.Create || operation == admission.Update
}

func (identity) Validate(context.Context, admission.AdmissionRequest, runtime.Object, runtime.Object) ([]string, error) {
	return nil, nil
}

func (identity) Mutate(_ context.Context, request admission.AdmissionRequest, object *unstructured.Unstructured) error {
	if request.Operation != admission.Create || request.RequestResource.Resource != "certificaterequests" {
		return nil
	}
	user := request.UserInfo
	groups := make([]any, len(user.Groups))
	for index, group := range user.Groups {
		groups[index] = group
	}
	for name, value := range map[string]any{"username": user.Username, "uid": user.UID, "groups": groups} {
		if err := unstructured.SetNestedField(object.Object, value, "spec", name); err != nil {
			return err
		}
	}
	return nil
}

// webhook is a simulation around upstream's server and certificate authority.
func webhook(ctx context.Context, config *rest.Config, given options) error {
	klog.Info("cert-manager's webhook is a simulation: it validates nothing that the schemas do not")
	scheme := runtime.NewScheme()
	if err := cmscheme.AddToScheme(scheme); err != nil {
		return err
	}
	// The server decodes objects into upstream's internal types, which cannot be imported: here the public ones stand for them.
	scheme.AddKnownTypes(schema.GroupVersion{Group: acme.SchemeGroupVersion.Group, Version: runtime.APIVersionInternal},
		&acme.Challenge{}, &acme.Order{})
	scheme.AddKnownTypes(schema.GroupVersion{Group: certmanager.SchemeGroupVersion.Group, Version: runtime.APIVersionInternal},
		&certmanager.Certificate{}, &certmanager.CertificateRequest{}, &certmanager.ClusterIssuer{}, &certmanager.Issuer{})
	source := &servertls.DynamicSource{
		DNSNames: given.dnsNames,
		Authority: &authority.DynamicAuthority{
			SecretNamespace: given.caSecretNamespace, SecretName: given.caSecretName, RESTConfig: config,
		},
	}
	one := server.Server{
		ResourceScheme: scheme, ListenAddr: given.securePort, HealthzAddr: &given.healthPort, CertificateSource: source,
		ValidationWebhook: identity{}, MutationWebhook: identity{}, MetricsListenAddress: "0", MinTLSVersion: "VersionTLS12",
	}
	return one.Run(ctx)
}
