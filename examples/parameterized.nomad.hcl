# A job that runs when it is called, with what the caller gives it:
#
#   echo 'some text' | herder job dispatch -meta customer=acme report -

job "report" {
  type = "batch"

  parameterized {
    payload       = "required"
    meta_required = ["customer"]
    meta_optional = ["language"]
  }

  meta {
    language = "en"
  }

  group "report" {
    task "write" {
      driver = "raw_exec"

      dispatch_payload {
        file = "order.txt"
      }

      config {
        command = "/bin/sh"
        args    = ["-c", "echo \"for $NOMAD_META_customer in $NOMAD_META_language:\"; cat local/order.txt"]
      }

      resources {
        cpu    = 20
        memory = 16
      }
    }
  }
}
