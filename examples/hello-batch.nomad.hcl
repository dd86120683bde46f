# The smallest job that ends: it says hello from where it runs, and is complete.
#
#   herder agent -dev
#   herder job run examples/hello-batch.nomad.hcl
#   herder alloc logs -job hello

job "hello" {
  type = "batch"

  group "hello" {
    task "hello" {
      driver = "raw_exec"

      config {
        command = "/bin/sh"
        args    = ["-c", "echo Hello from allocation $NOMAD_SHORT_ALLOC_ID in $NOMAD_DC"]
      }

      resources {
        cpu    = 20
        memory = 16
      }
    }
  }
}
