job = {
  "hcl1-nested-labels" = {
    "type" = "batch"
    group = {
      web = {
        count = 2
        task = {
          main = {
            driver = "raw_exec"
            config = { command = "/bin/true" }
            resources = {
              network = {
                mbits = 5
                port = {
                  http = { static = 80 }
                  admin = {}
                }
              }
            }
          }
        }
      }
    }
  }
}
